"""Volumes and mounts of pods: what is refused of them."""

from __future__ import annotations

import pytest

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.status import StatusError
from tests.sandbox.cluster.settled import Settled

VOLUME = {"name": "v", "emptyDir": {}}
MOUNT = {"name": "v", "mountPath": "/v"}
MOUNTS = "spec.containers[0].volumeMounts"


@pytest.mark.parametrize(
    ("volumes", "mounts", "message"),
    [
        (
            [VOLUME],
            [{**MOUNT, "subPath": "../x"}],
            f"{MOUNTS}[0].subPath: Invalid value: \"../x\": must not contain '..'",
        ),
        ([VOLUME], [{**MOUNT, "subPath": "a/../.."}], "must not contain '..'"),
        ([VOLUME], [{**MOUNT, "subPath": "/etc"}], "must be a relative path"),
        ([VOLUME], [{**MOUNT, "subPathExpr": "$(A)/.."}], "must not contain '..'"),
        ([VOLUME], [{**MOUNT, "subPath": "a", "subPathExpr": "b"}], "are mutually exclusive"),
        ([VOLUME], [MOUNT, MOUNT], f'{MOUNTS}[1].mountPath: Invalid value: "/v": must be unique'),
        ([VOLUME, VOLUME], [], 'spec.volumes[1].name: Duplicate value: "v"'),
        ([{"emptyDir": {}}], [], "spec.volumes[0].name: Required value"),
        ([], [MOUNT], f'{MOUNTS}[0].name: Not found: "v"'),
        (
            [{"name": "v", "hostPath": {"path": "/run/../etc"}}],
            [],
            "spec.volumes[0].hostPath.path: Invalid value: \"/run/../etc\": must not contain '..'",
        ),
    ],
)
def test_a_mount_that_leads_out_of_its_volume_is_refused(
    world: Settled, volumes: list[Obj], mounts: list[Obj], message: str
) -> None:
    containers = [{"name": "c", "image": "x", "volumeMounts": mounts}]
    body = {"metadata": {"name": "p"}, "spec": {"containers": containers, "volumes": volumes}}
    with pytest.raises(StatusError) as refused:
        world.create("pods", body)
    assert refused.value.code == 422
    assert message in str(refused.value)


def test_dots_in_a_name_lead_nowhere(world: Settled) -> None:
    mount = {**MOUNT, "subPath": "a..b/...c"}
    containers = [{"name": "c", "image": "x", "volumeMounts": [mount]}]
    body = {"metadata": {"name": "p"}, "spec": {"containers": containers, "volumes": [VOLUME]}}
    world.create("pods", body)
    assert world.get("pods", "p") is not None
