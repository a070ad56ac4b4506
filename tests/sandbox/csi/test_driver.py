"""The driver with a vault and a cluster in memory: what a pod finds, sees change, is told."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from podidentity_sandbox.csi.driver import Cluster, Driver
from podidentity_sandbox.csi.parameters import POD_NAME, POD_NAMESPACE, MountFailed
from podidentity_sandbox.csi.provider import secrets

PREFIX = "rpc error: code = Unknown desc = failed to mount objects, error: "
FAILED = f"failed to mount secrets store objects for pod shop/orders-0, err: {PREFIX}"
MODES = (
    f"{FAILED}only one identity mode can be enabled at a time: "
    "usePodIdentity, useVMManagedIdentity, or useAzureTokenProxy"
)
OUTSIDE = (
    "failed to mount secrets store objects for pod shop/orders-0, err: "
    "invalid path: must not contain '..': ../../etc/passwd"
)
ATTRIBUTES = {
    "secretProviderClass": "store",
    "csi.storage.k8s.io/pod.name": "orders-0",
    "csi.storage.k8s.io/pod.namespace": "shop",
    "csi.storage.k8s.io/pod.uid": "u1",
    "csi.storage.k8s.io/serviceAccount.name": "default",
}


ONE = {"objectName": "s", "objectType": "secret"}


def objects(*given: dict[str, Any]) -> str:
    return yaml.safe_dump({"array": [yaml.safe_dump(one) for one in given]})


def parameters(**changes: str) -> dict[str, str]:
    """Return what a class says for a pod, with some of it changed."""
    given = {"usePodIdentity": "true", "keyvaultName": "demo-kv", "tenantID": "t"}
    of_pod = {POD_NAMESPACE: "shop", POD_NAME: "orders-0"}
    return {**given, "objects": objects(ONE), **of_pod, **changes}


class World(Cluster):
    """NMI, a vault and an API server that answer from dictionaries."""

    def __init__(self) -> None:
        self.secrets: dict[str, tuple[str, str]] = {"s": ("hunter2", "v1")}
        self.classes: dict[str, dict[str, Any]] = {
            "store": {"spec": {"provider": "azure", "parameters": parameters()}}
        }
        self.refusal = ""
        self.events: list[tuple[str, str]] = []
        self.asked: list[tuple[str, str, str]] = []

    async def token(self, namespace: str, name: str, resource: str) -> str:
        self.asked.append((namespace, name, resource))
        if self.refusal:
            raise MountFailed(self.refusal)
        return "token"

    async def secret(self, vault: str, name: str, version: str, token: str) -> tuple[str, str]:
        assert (vault, version, token) == ("demo-kv.vault.azure.net", "", "token")
        return self.secrets[name]

    async def secret_provider_class(self, namespace: str, name: str) -> dict[str, Any]:
        if name not in self.classes:
            raise MountFailed(f"failed to get secretproviderclass {namespace}/{name}, error: no")
        return self.classes[name]

    async def tell(
        self, _attributes: Mapping[str, str], kind: str, reason: str, message: str
    ) -> None:
        self.events.append((f"{kind} {reason}", message))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def driver(world: World) -> Driver:
    return Driver(world, partial(secrets, token=world.token, secret=world.secret))


def call(folder: Path, **changes: Any) -> Mapping[str, Any]:
    return {"target": str(folder), "attributes": ATTRIBUTES, "readOnly": True} | changes


def of_class(name: str) -> dict[str, Any]:
    return {"attributes": ATTRIBUTES | {"secretProviderClass": name}}


def names(folder: Path) -> set[str]:
    """Return what a pod sees of its volume, and what else is left there."""
    return {entry.name for entry in folder.iterdir()}


async def test_a_volume_with_many_secrets_asks_for_one_token(
    world: World, driver: Driver, tmp_path: Path
) -> None:
    world.secrets["b"] = ("hi", "v1")
    given = objects(
        ONE | {"objectAlias": "db/password"}, {"objectName": "b", "objectType": "secret"}
    )
    world.classes["store"]["spec"]["parameters"] = parameters(objects=given)
    for _ in range(2):  # a repeated call does nothing again
        await driver.publish(call(tmp_path))
    assert world.asked == [("shop", "orders-0", "https://vault.azure.net")]
    assert [(tmp_path / name).read_text() for name in ("db/password", "b")] == ["hunter2", "hi"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"readOnly": False}, ("InvalidArgument", "Readonly is not true in request")),
        (of_class(""), ("Unknown", "secretProviderClass is not set")),
        (of_class("none"), ("Unknown", "failed to get secretproviderclass shop/none, error: no")),
        (of_class("outside"), ("Unknown", OUTSIDE)),
        (of_class("two modes"), ("Unknown", MODES)),
        (of_class("no vault"), ("Unknown", f"{FAILED}keyvaultName is not set")),
        (
            of_class("vault"),
            ("Unknown", 'error connecting to provider "vault": provider not found'),
        ),
    ],
)
async def test_a_call_that_cannot_be_served_gets_the_drivers_words(
    world: World, driver: Driver, tmp_path: Path, changes: Any, told: tuple[str, str]
) -> None:
    out = parameters(objects=objects(ONE | {"objectAlias": "../../etc/passwd"}))
    world.classes |= {
        "outside": {"spec": {"provider": "azure", "parameters": out}},
        "vault": {"spec": {"provider": "vault"}},
        "two modes": {
            "spec": {"provider": "azure", "parameters": parameters(useAzureTokenProxy="true")}
        },
        "no vault": {"spec": {"provider": "azure", "parameters": parameters(keyvaultName="")}},
    }
    with pytest.raises(MountFailed) as failed:
        await driver.publish(call(tmp_path, **changes))
    assert (failed.value.code, str(failed.value)) == told
    assert names(tmp_path) == set()


async def test_a_rotation_that_fails_leaves_the_file_and_tells_the_pod(
    world: World, driver: Driver, tmp_path: Path
) -> None:
    await driver.publish(call(tmp_path))
    await driver.rotate()
    assert world.events == []
    world.refusal = "nmi response failed with status code: 503, response body: later"
    await driver.rotate()
    assert (tmp_path / "s").read_text() == "hunter2"
    ((what, message),) = world.events
    assert what == "Warning MountRotationFailed"
    assert message.startswith("provider mount err: " + PREFIX)
    assert message.endswith(world.refusal)


async def test_a_secret_that_the_class_no_longer_names_goes(
    world: World, driver: Driver, tmp_path: Path
) -> None:
    world.secrets["other"] = ("x", "v1")
    await driver.publish(call(tmp_path))
    other = objects({"objectName": "other", "objectType": "secret"})
    world.classes["store"]["spec"]["parameters"] = parameters(objects=other)
    await driver.rotate()
    assert {name for name in names(tmp_path) if not name.startswith("..")} == {"other"}


async def test_a_volume_that_is_let_go_rotates_no_more(
    world: World, driver: Driver, tmp_path: Path
) -> None:
    await driver.publish(call(tmp_path))
    await driver.unpublish(call(tmp_path))
    await driver.unpublish(call(tmp_path))
    world.secrets["s"] = ("changed", "v2")
    await driver.rotate()
    assert ((tmp_path / "s").read_text(), world.events) == ("hunter2", [])
