"""Volumes and mounts of pods: what is refused of them."""

from __future__ import annotations

import json

import pytest

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.status import StatusError
from tests.sandbox.cluster.settled import Settled

VOLUME = {"name": "v", "emptyDir": {}}
MOUNT = {"name": "v", "mountPath": "/v"}
MOUNTS = "spec.containers[0].volumeMounts"
NAME = {"fieldRef": {"fieldPath": "metadata.name"}}


def projected(source: str, said: Obj) -> Obj:
    return {"projected": {"sources": [{source: said}]}}


KEYS = [{"key": "k", "path": "HERE"}]
FILES = [
    json.dumps(volume)
    for volume in (
        {"configMap": {"name": "c", "items": KEYS}},
        {"secret": {"secretName": "s", "items": KEYS}},
        {"downwardAPI": {"items": [{"path": "HERE", **NAME}]}},
        projected("configMap", {"name": "c", "items": KEYS}),
        projected("secret", {"name": "s", "items": KEYS}),
        projected("downwardAPI", {"items": [{"path": "HERE", **NAME}]}),
        projected("serviceAccountToken", {"path": "HERE"}),
    )
]
"""A volume of each source of files, the file's path still to be filled in."""


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
        (
            [{"name": "../../x", "emptyDir": {}}],
            [],
            'spec.volumes[0].name: Invalid value: "../../x": a lowercase RFC 1123 label',
        ),
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


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/passwd", "must be a relative path"),
        ("../../x", "must not contain '..'"),
        ("a/../../x", "must not contain '..'"),
        ("..data", "must not start with '..'"),
    ],
)
@pytest.mark.parametrize("volume", FILES)
def test_a_file_outside_its_volume_is_refused(
    world: Settled, volume: str, path: str, why: str
) -> None:
    said = refusal(world, json.loads(volume.replace("HERE", path)))
    assert f'path: Invalid value: "{path}": {why}' in said


@pytest.mark.parametrize(
    ("volume", "fault"),
    [
        (
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "/x"}]}},
            'configMap.items[0].path: Invalid value: "/x": must be a relative path',
        ),
        (
            {"secret": {"secretName": "s", "items": [{"path": "x"}]}},
            "secret.items[0].key: Required",
        ),
        (
            {"configMap": {"name": "c", "items": [{"key": "k"}]}},
            "configMap.items[0].path: Required",
        ),
        (
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "x", "mode": 512}]}},
            "configMap.items[0].mode: Invalid value: 512: must be a number between 0 and 0777",
        ),
        (
            projected("secret", {"name": "s", "items": [{"key": "k"}]}),
            "projected.sources[0].secret.items[0].path: Required value",
        ),
        (projected("serviceAccountToken", {}), "projected.path: Required value"),
        ({"downwardAPI": {"items": [NAME]}}, "downwardAPI.path: Required value"),
        (
            {"downwardAPI": {"items": [{"path": "x"}]}},
            "downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
        ),
        (
            {"downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"resource": "a"}}]}},
            "downwardAPI.resourceFieldRef.containerName: Required value",
        ),
        (
            {"downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"containerName": "c"}}]}},
            "downwardAPI.resourceFieldRef.resource: Required value",
        ),
    ],
)
def test_a_fault_of_a_file_is_told_where_the_real_server_tells_it(
    world: Settled, volume: Obj, fault: str
) -> None:
    assert f"spec.volumes[0].{fault}" in refusal(world, volume)


def refusal(world: Settled, volume: Obj) -> str:
    containers = [{"name": "c", "image": "x"}]
    spec = {"containers": containers, "volumes": [{"name": "v", **volume}]}
    with pytest.raises(StatusError) as refused:
        world.create("pods", {"metadata": {"name": "p"}, "spec": spec})
    assert refused.value.code == 422
    return str(refused.value)
