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
    """Return a pod with each volume under its name in /v."""
    mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
    return pod(name, container(volumeMounts=mounts), volumes=list(volumes), **more)


def test_a_config_map_and_a_secret_are_files_that_nobody_can_write(made: Site) -> None:
    volumes = (
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "login", "defaultMode": 0o400}},
    )
    made.run(mounting("pod", *volumes))
    assert made.says("pod", "cat /v/config/colour /v/config/size /v/secret/user") == "red5root"
    assert made.says("pod", "stat -Lc %a /v/config/colour /v/secret/user") == "644\n400"
    assert "Read-only file system" in made.sh("pod", "echo x > /v/config/colour").stderr.decode()


def test_only_the_items_that_are_named_are_there_with_their_modes(made: Site) -> None:
    items = [{"key": "colour", "path": "deep/paint", "mode": 0o600}]
    made.run(mounting("pod", {"name": "config", "configMap": {"name": "settings", "items": items}}))
    assert made.says("pod", "ls /v/config; cat /v/config/deep/paint") == "deep\nred"
    assert made.says("pod", "stat -Lc %a /v/config/deep/paint") == "600"


def test_a_pod_waits_for_a_config_map_that_comes_late(made: Site) -> None:
    made.create(mounting("waiting", {"name": "config", "configMap": {"name": "late"}}))
    said = made.event("waiting", "FailedMount")
    assert said == 'MountVolume.SetUp failed for volume "config" : configmap "late" not found'
    made.api.request("POST", CONFIG, {"metadata": {"name": "late"}, "data": {"a": "b"}})
    made.until("waiting")
    assert made.says("waiting", "cat /v/config/a") == "b"


@pytest.mark.parametrize(
    ("name", "volume", "why"),
    [
        ("lost", {"secret": {"secretName": "none"}}, 'secret "none" not found'),
        (
            "unkeyed",
            {"configMap": {"name": "settings", "items": [{"key": "no", "path": "no"}]}},
            "configmap references non-existent config key: no",
        ),
        (
            "unkeyed-secret",
            {"secret": {"secretName": "login", "items": [{"key": "no", "path": "no"}]}},
            "references non-existent secret key: no",
        ),
    ],
)
def test_what_is_not_there_is_said_in_the_event(
    made: Site, name: str, volume: dict[str, Any], why: str
) -> None:
    made.create(mounting(name, {"name": "v", **volume}))
    said = made.event(name, "FailedMount")
    assert said == f'MountVolume.SetUp failed for volume "v" : {why}'
    assert waits_for("ContainerCreating")(made.get(name))


def test_what_is_optional_and_not_there_makes_an_empty_folder(made: Site) -> None:
    made.run(mounting("pod", {"name": "v", "configMap": {"name": "none", "optional": True}}))
    assert made.says("pod", "ls /v/v") == ""


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


def test_environment_comes_from_config_maps_and_secrets(made: Site) -> None:
    entries = [
        {"name": "USER_", "valueFrom": {"secretKeyRef": {"name": "login", "key": "user"}}},
        {"name": "PAINT", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
    ]
    made.run(pod("pod", container(env=entries)))
    assert made.says("pod", "echo $USER_ $PAINT") == "root red"


def test_a_container_whose_secret_is_missing_says_so(made: Site) -> None:
    source = {"secretKeyRef": {"name": "none", "key": "user"}}
    made.create(pod("keyless", container(env=[{"name": "X", "valueFrom": source}])))
    found = made.until("keyless", waits_for("CreateContainerConfigError"))
    state = found["status"]["containerStatuses"][0]["state"]["waiting"]
    assert state["message"] == 'secret "none" not found'
    assert made.event("keyless", "Failed") == 'Error: secret "none" not found'


SUB_PATH = {"name": "e", "mountPath": "/one", "subPath": "file"}
VOLUME = {"name": "e", "emptyDir": {}}


@pytest.mark.parametrize(
    ("name", "made_of", "why"),
    [
        ("part", container(volumeMounts=[SUB_PATH]), "the sandbox serves no subPath"),
        (
            "many",
            container(envFrom=[{"configMapRef": {"name": "m"}}]),
            "the sandbox serves no envFrom",
        ),
    ],
)
def test_what_the_sandbox_does_not_serve_is_refused_with_its_name(
    site: Site, name: str, made_of: dict[str, Any], why: str
) -> None:
    site.create(pod(name, made_of, volumes=[VOLUME]))
    found = site.until(name, waits_for("CreateContainerConfigError"))
    state = found["status"]["containerStatuses"][0]["state"]["waiting"]
    assert state["message"].startswith(why)


def test_a_pod_that_wants_no_token_has_none(made: Site) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    made.run(pod("pod"))
    assert made.says("pod", f"ls {folder}") == "ca.crt\nnamespace\ntoken"
    made.run(pod("without", automountServiceAccountToken=False))
    assert made.sh("without", f"ls {folder}").exit != 0
