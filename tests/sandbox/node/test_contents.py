"""Volumes whose files the kubelet writes: config maps, secrets, tokens, what a pod is.

https://kubernetes.io/docs/concepts/storage/volumes/
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from podidentity_sandbox.world.api import ApiError
from tests.sandbox.node.site import Site, container, pod, waits_for

pytestmark = pytest.mark.net
CONFIG, SECRETS = (f"/api/v1/namespaces/default/{kind}" for kind in ("configmaps", "secrets"))


@pytest.fixture
def made(site: Site) -> Iterator[Site]:
    """A site with a config map `settings` and a secret `login`."""
    data = {"colour": "red", "size": "5"}
    site.api.request("POST", CONFIG, {"metadata": {"name": "settings"}, "data": data})
    site.api.request(
        "POST", SECRETS, {"metadata": {"name": "login"}, "stringData": {"user": "root"}}
    )
    yield site
    for path in (f"{CONFIG}/settings", f"{CONFIG}/late", f"{SECRETS}/login"):
        with suppress(ApiError):
            site.api.request("DELETE", path)


def mounting(name: str, *volumes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a pod with each volume under its name in /v; `more` is its container's."""
    mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
    return pod(name, container(volumeMounts=mounts, **more), volumes=list(volumes))


def test_a_config_map_and_a_secret_are_files_that_nobody_can_write_and_variables(
    made: Site,
) -> None:
    items = [{"key": "colour", "path": "deep/paint", "mode": 0o600}]
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "some", "configMap": {"name": "settings", "items": items}},
        {"name": "none", "configMap": {"name": "none", "optional": True}},
        {"name": "secret", "secret": {"secretName": "login", "defaultMode": 0o400}},
    ]
    entries = [
        {"name": "USER_", "valueFrom": {"secretKeyRef": {"name": "login", "key": "user"}}},
        {"name": "PAINT", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
    ]
    made.run(mounting("pod", *volumes, env=entries))
    read = "cat config/colour config/size secret/user some/deep/paint; ls some none"
    assert made.says("pod", f"cd /v; {read}") == "red5rootrednone:\n\nsome:\ndeep"
    modes = "stat -Lc %a config/colour secret/user some/deep/paint"
    assert made.says("pod", f"cd /v; {modes}") == "644\n400\n600"
    assert "Read-only file system" in made.sh("pod", "echo x > /v/config/colour").stderr.decode()
    assert made.says("pod", "echo $USER_ $PAINT") == "root red"


def test_a_pod_waits_for_a_config_map_that_comes_late(made: Site) -> None:
    made.create(mounting("waiting", {"name": "config", "configMap": {"name": "late"}}))
    said = made.event("waiting", "FailedMount")
    assert said == 'MountVolume.SetUp failed for volume "config" : configmap "late" not found'
    assert waits_for("ContainerCreating")(made.get("waiting"))
    made.api.request("POST", CONFIG, {"metadata": {"name": "late"}, "data": {"a": "b"}})
    made.until("waiting")
    assert made.says("waiting", "cat /v/config/a") == "b"


def test_a_token_is_projected_for_its_audience_and_bound_to_the_pod(made: Site) -> None:
    token = {"audience": "api://AzureADTokenExchange", "expirationSeconds": 3600, "path": "t"}
    volume = {"name": "v", "projected": {"sources": [{"serviceAccountToken": token}]}}
    found = made.run(mounting("pod", volume))
    payload = made.says("pod", "cat /v/v/t").split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert claims["aud"] == ["api://AzureADTokenExchange"]
    assert claims["kubernetes.io"]["pod"]["uid"] == found["metadata"]["uid"]
    assert claims["exp"] - claims["iat"] == 3600


def test_one_projected_volume_holds_files_of_several_sources(made: Site) -> None:
    label = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    sources = [
        {"configMap": {"name": "settings"}},
        {"secret": {"name": "login"}},
        {"downwardAPI": {"items": [label]}},
    ]
    made_pod = mounting("pod", {"name": "v", "projected": {"sources": sources}})
    made_pod["metadata"]["labels"] = {"app": "web", "tier": "a"}
    made.run(made_pod)
    assert made.says("pod", "ls /v/v") == "colour\nlabels\nsize\nuser"
    assert made.says("pod", "cat /v/v/labels") == 'app="web"\ntier="a"'


SUB_PATH = {"name": "e", "mountPath": "/one", "subPath": "file"}
VOLUME = {"name": "e", "emptyDir": {}}


NO_SECRET = {"secretKeyRef": {"name": "none", "key": "user"}}


@pytest.mark.parametrize(
    ("name", "made_of", "why"),
    [
        ("part", container(volumeMounts=[SUB_PATH]), "the sandbox serves no subPath"),
        (
            "keyless",
            container(env=[{"name": "X", "valueFrom": NO_SECRET}]),
            'secret "none" not found',
        ),
    ],
)
def test_what_a_container_cannot_have_is_refused_with_its_name(
    site: Site, name: str, made_of: dict[str, Any], why: str
) -> None:
    site.create(pod(name, made_of, volumes=[VOLUME]))
    found = site.until(name, waits_for("CreateContainerConfigError"))
    state = found["status"]["containerStatuses"][0]["state"]["waiting"]
    assert state["message"].startswith(why)
    assert site.event(name, "Failed") == f"Error: {state['message']}"


def test_a_pod_that_wants_no_token_has_none(made: Site) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    made.run(pod("pod"))
    assert made.says("pod", f"ls {folder}") == "ca.crt\nnamespace\ntoken"
    made.run(pod("without", automountServiceAccountToken=False))
    assert made.sh("without", f"ls {folder}").exit != 0
