"""An operator puts etcd back to an older copy, as from a backup, while MIC runs.

The store then lacks records that MIC has just made, and has pods and records again that MIC saw
end. MIC reads the lists one after the other, so it can meet a record before its pod. The weather is
calm, so that each change of a record is MIC's own. `./scripts/test --scale` has 5,000 pods.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from podidentity_sandbox.kubernetes.programs import PROGRAMS
from podidentity_sandbox.weather import CALM, changed, write
from podidentity_sandbox.world.api import ApiError
from tests.acceptance.mic.controlled import Controlled, controlled
from tests.acceptance.mic.load import Load
from tests.acceptance.sandbox import needs_control_plane

PODS = int(os.environ.get("PODIDENTITY_TEST_PODS", "600"))
LATER = 100
"""Pods whose records the copy lacks. After the copy, as many pods end and as many are made."""
PATIENCE = float(PODS)
"""Seconds for all pods to be Assigned: one for each pod."""
RIGHT_SECONDS = 60.0
"""When the API server answers again, every pod must have its record within this time."""
RECORDS = "azureassignedidentities"
RECORDS_FIRST = "apiserver=[{effect: slow, seconds: 3, kind: '*podidentity-mic list pods'}]"
"""Weather that delays MIC's list of pods, so that MIC reads the records first."""
log = logging.getLogger(__name__)


@pytest.fixture
def place() -> Iterator[Controlled]:
    with controlled("mic-put-back", weather=CALM, nodes=1) as found:
        yield found


@needs_control_plane
@pytest.mark.timeout(1800)
def test_no_record_of_a_pod_is_deleted_when_etcd_is_put_back(place: Controlled) -> None:
    nodes = place.hollow_nodes(10)
    identities = [place.identity(f"load-{number}") for number in range(20)]
    load = Load(place=place, pods=PODS, namespaces=20, nodes=nodes, identities=identities)
    load.bind()
    load.make()
    place.until(lambda: are_right(place), "not all are Assigned", PATIENCE)

    folder = place.sandbox.plan.path / "kubernetes"
    mic = place.sandbox.processes("mic")
    with place.sandbox.stopped("mic"):
        replace(load, first=PODS, pods=LATER).make()
        part(place, "pause", "etcd")
        shutil.copytree(folder / "etcd", folder / "copy")
        part(place, "resume", "etcd")
    for number in range(LATER):
        path = f"/api/v1/namespaces/{load.namespace(number)}/pods/load-{number}"
        place.sandbox.api.request("DELETE", f"{path}?gracePeriodSeconds=0")
    replace(load, first=PODS + LATER, pods=LATER).make()
    place.until(lambda: are_right(place), "not all are Assigned", PATIENCE)

    for program in reversed([*PROGRAMS]):
        part(place, "kill", program)
    shutil.rmtree(folder / "etcd")
    (folder / "copy").rename(folder / "etcd")
    told = (folder / "audit.log").stat().st_size
    write(place.sandbox.plan.path, changed(CALM, [RECORDS_FIRST]))
    for program in PROGRAMS:
        part(place, "start", program)
    began = time.monotonic()
    place.until(lambda: are_right(place), "not all are Assigned", RIGHT_SECONDS)
    took = time.monotonic() - began

    with (folder / "audit.log").open() as audit:
        audit.seek(told)
        done = [
            (said["verb"], about.get("namespace"), about.get("name"))
            for said in map(json.loads, audit)
            if (about := said.get("objectRef", {})).get("resource") == RECORDS
            and said["responseStatus"]["code"] < 300
        ]
    log.info("%s pods were right after %.1f s", PODS + LATER, took)
    names = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in place.records()}
    assert not [ref for verb, *ref in done if verb == "delete" and tuple(ref) in names]
    assert sum(verb == "create" for verb, *_ in done) >= LATER
    assert place.sandbox.processes("mic") == mic


def part(place: Controlled, order: str, name: str) -> None:
    place.sandbox.run("podidentity", "sandbox", "part", order, name)


def are_right(place: Controlled) -> bool:
    """Return whether each pod has exactly one record, all are Assigned, and no other is there."""
    with suppress(OSError, ApiError):
        found = [(each["spec"]["podNamespace"], each["spec"]["pod"]) for each in place.records()]
        return sorted(found) == pods_of(place) and {*place.states()} == {"Assigned"}
    return False


def pods_of(place: Controlled) -> list[tuple[str, str]]:
    found = place.get("/api/v1/pods?labelSelector=aadpodidbinding")["items"]
    return sorted((each["metadata"]["namespace"], each["metadata"]["name"]) for each in found)
