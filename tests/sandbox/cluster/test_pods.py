"""Which pods are refused: what their node would stumble over, or miss."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster import Obj
from tests.sandbox.cluster.conftest import PODS, Client, check_refusal, pod
from tests.sandbox.cluster.settled import Settled


def one(**more: Any) -> Obj:
    """Return the spec of a pod of one container, of which this is said, too."""
    return {"containers": [{"name": "c", "image": "x", **more}]}


def volume(name: str = "v", **source: Any) -> Obj:
    return {**one(), "volumes": [{"name": name, **source}]}


def outside(path: str) -> Obj:
    return {"items": [{"key": "k", "path": path}]}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"containers": []}, "containers: Required value"),
        ({"containers": one()["containers"] * 2}, 'name: Duplicate value: "c"'),
        ({**one(), "schedulingGates": [{"name": "g"}]}, "schedulingGates: Forbidden: the sandbox"),
        (one(startupProbe={"exec": {}}), "startupProbe: Forbidden: the sandbox"),
        (one(lifecycle={"postStart": {"exec": {}}}), "Forbidden: the sandbox runs preStop with"),
        (one(volumeMounts=[{"name": "v", "mountPath": "/v"}]), 'name: Not found: "v"'),
        (volume("../x", emptyDir={}), "a lowercase RFC 1123 label must be of the form"),
        (volume(secret=outside("/etc/passwd")), "must be a path inside of the volume"),
        (volume(configMap=outside("a/../../x")), "must be a path inside of the volume"),
        (volume(downwardAPI=outside("..data")), "must be a path inside of the volume"),
        (
            volume(projected={"sources": [{"serviceAccountToken": {"path": "../x"}}]}),
            "must be a path inside of the volume",
        ),
    ],
)
def test_a_pod_that_cannot_run_is_invalid(world: Settled, spec: Obj, says: str) -> None:
    assert says in world.refused("pods", {"metadata": {"name": "p"}, "spec": spec})


async def test_a_pod_of_fields_of_other_types_is_refused_and_stops_nobody(api: Client) -> None:
    for spec in ({"tolerations": "all"}, {"volumes": [1]}, {"containers": {"name": "c"}}):
        check_refusal(await api.post(PODS, json=pod(**spec)), 400, "cannot be handled as a Pod")
    assert (await api.post(PODS, json=pod())).status_code == 201


def test_what_is_limited_and_not_requested_is_requested(world: Settled) -> None:
    limits = {"cpu": "200m"}
    spec = one(resources={"limits": limits})
    world.create("pods", {"metadata": {"name": "p"}, "spec": spec})
    (container,) = world.the("pods", "p").object["spec"]["containers"]
    assert container["resources"]["requests"] == limits


async def test_a_pod_without_an_address_is_no_proxys_aim(api: Client) -> None:
    await api.post(PODS, json=pod())
    check_refusal(await api.get(f"{PODS}/a:80/proxy/metrics"), 400, "address not allowed")
    assert (await api.get(f"{PODS}/b/proxy/")).status_code == 404
