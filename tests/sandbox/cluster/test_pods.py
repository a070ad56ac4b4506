"""Which pods are valid, with their volumes and mounts, and their class of service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity_sandbox.cluster import Obj
from tests.sandbox.cluster.conftest import PODS, Client, check_refusal, pod
from tests.sandbox.cluster.settled import Settled


def one(**more: Any) -> Obj:
    """Return the spec of a pod of one container, of which this is said, too."""
    return {"containers": [{"name": "c", "image": "x", **more}]}


def refusal(world: Settled, spec: Obj) -> str:
    return world.refused("pods", {"metadata": {"name": "p"}, "spec": spec})


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"containers": []}, "containers: Required value"),
        ({"containers": [{"image": "x"}]}, "containers[0].name: Required value"),
        ({"containers": one()["containers"] * 2}, 'containers[1].name: Duplicate value: "c"'),
        (
            {**one(), "restartPolicy": "Sometimes"},
            'restartPolicy: Unsupported value: "Sometimes": supported values: "Always"',
        ),
        ({**one(), "schedulingGates": [{"name": "g"}]}, "schedulingGates: Forbidden: the sandbox"),
        (one(startupProbe={"exec": {}}), "containers[0].startupProbe: Forbidden: the sandbox"),
        (
            one(lifecycle={"postStart": {"exec": {}}}),
            "containers[0].lifecycle.postStart: Forbidden: the sandbox runs preStop with exec",
        ),
    ],
)
def test_a_pod_that_cannot_run_is_invalid(world: Settled, spec: Obj, says: str) -> None:
    assert f'Pod "p" is invalid: spec.{says}' in refusal(world, spec)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            one(env=[{"name": "PORT", "value": 80}]),
            "number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            one(resources={"limits": {"cpu": [1]}}),
            "array into Go struct field ResourceRequirements.spec.containers.resources.limits of "
            "type quantity",
        ),
        ({"hostPID": "yes"}, "string into Go struct field PodSpec.spec.hostPID of type bool"),
        (
            {"nodeSelector": {"disk": 1}},
            "number into Go struct field PodSpec.spec.nodeSelector of type string",
        ),
        ({"tolerations": "all"}, "string into Go struct field PodSpec.spec.tolerations of type []"),
    ],
)
async def test_a_field_of_another_type_than_its_own_does_not_decode(
    api: Client, spec: dict[str, Any], says: str
) -> None:
    answer = await api.post(PODS, json=pod(**spec))
    check_refusal(answer, 400, f"cannot be handled as a Pod: json: cannot unmarshal {says}")


async def test_an_amount_is_a_number_or_a_text(api: Client) -> None:
    spec = one(resources={"limits": {"cpu": 0.5, "memory": "64Mi"}})
    assert (await api.post(PODS, json=pod(**spec))).status_code == 201


# ---- Volumes and mounts of pods: what is refused of them.

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
    assert message in refusal(world, {**one(volumeMounts=mounts), "volumes": volumes})


def test_dots_in_a_name_lead_nowhere(world: Settled) -> None:
    mount = {**MOUNT, "subPath": "a..b/...c"}
    spec = {**one(volumeMounts=[mount]), "volumes": [VOLUME]}
    assert world.create("pods", {"metadata": {"name": "p"}, "spec": spec})


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
    source = json.loads(volume.replace("HERE", path))
    said = refusal(world, {**one(), "volumes": [{"name": "v", **source}]})
    assert f'path: Invalid value: "{path}": {why}' in said


def items(**item: Any) -> Obj:
    return {"name": "c", "items": [item]}


@pytest.mark.parametrize(
    ("volume", "fault"),
    [
        (
            {"configMap": items(key="k", path="/x")},
            'configMap.items[0].path: Invalid value: "/x": must be a relative path',
        ),
        ({"secret": items(path="x")}, "secret.items[0].key: Required"),
        ({"configMap": items(key="k")}, "configMap.items[0].path: Required"),
        (
            {"configMap": items(key="k", path="x", mode=512)},
            "configMap.items[0].mode: Invalid value: 512: must be a number between 0 and 0777",
        ),
        (
            projected("secret", items(key="k")),
            "projected.sources[0].secret.items[0].path: Required value",
        ),
        (projected("serviceAccountToken", {}), "projected.path: Required value"),
        ({"downwardAPI": {"items": [NAME]}}, "downwardAPI.path: Required value"),
        (
            {"downwardAPI": items(path="x")},
            "downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
        ),
        (
            {"downwardAPI": items(path="x", resourceFieldRef={"resource": "a"})},
            "downwardAPI.resourceFieldRef.containerName: Required value",
        ),
        (
            {"downwardAPI": items(path="x", resourceFieldRef={"containerName": "c"})},
            "downwardAPI.resourceFieldRef.resource: Required value",
        ),
    ],
)
def test_a_fault_of_a_file_is_told_where_the_real_server_tells_it(
    world: Settled, volume: Obj, fault: str
) -> None:
    spec = {**one(), "volumes": [{"name": "v", **volume}]}
    assert f"spec.volumes[0].{fault}" in refusal(world, spec)


# ---- The class of service that a pod's resources come to.
#
# https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/

BOTH = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"limits": {"example.com/gpu": "1"}}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
        ([{"limits": BOTH}], "Guaranteed"),
        ([{"limits": BOTH, "requests": BOTH}], "Guaranteed"),
        ([{"limits": BOTH, "requests": {"cpu": "1", "memory": "1Mi"}}], "Burstable"),
        ([{"limits": BOTH}, {}], "Burstable"),
    ],
)
def test_limits_and_requests_of_all_containers_decide(
    world: Settled, resources: list[Obj], expected: str
) -> None:
    containers = [
        {"name": f"c{index}", "image": "x", "resources": each}
        for index, each in enumerate(resources)
    ]
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"containers": containers}})
    assert world.the("pods", "p").object["status"]["qosClass"] == expected


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


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"minAvailable": 1, "maxUnavailable": "10%"}, "minAvailable and maxUnavailable cannot"),
        ({"minAvailable": -1}, "spec.minAvailable: Invalid value: -1: must be greater than or"),
        ({"maxUnavailable": "some"}, 'spec.maxUnavailable: Invalid value: "some": a valid percent'),
        (
            {"unhealthyPodEvictionPolicy": "No"},
            'Unsupported value: "No": supported values: "Always',
        ),
    ],
)
def test_a_disruption_budget_is_checked(world: Settled, spec: Obj, said: str) -> None:
    key = "poddisruptionbudgets.policy"
    assert said in world.refused(key, {"metadata": {"name": "b"}, "spec": spec})
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "nmi"}}}
    assert world.create(key, {"metadata": {"name": "b"}, "spec": spec}).metadata["generation"] == 1
