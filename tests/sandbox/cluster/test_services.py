"""Services get an address, and keep it; a CSIDriver its defaults."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.status import StatusError
from tests.sandbox.cluster.settled import Settled

DRIVERS = "csidrivers.storage.k8s.io"


def service(name: str = "web", **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def spec_of(world: Settled, name: str = "web", key: str = "services") -> Obj:
    found = world.the(key, name)
    spec: Obj = found.object["spec"]
    return spec


def test_each_service_has_an_address_that_no_other_has(world: Settled) -> None:
    for name in ("a", "b", "c"):
        world.create("services", service(name))
    world.delete("services", "a")
    world.create("services", service("d"))
    addresses = [spec_of(world, name)["clusterIP"] for name in ("b", "c", "d")]
    assert len(set(addresses)) == 3
    assert all(address.startswith("10.0.") for address in addresses)


def test_a_change_keeps_the_address(world: Settled) -> None:
    world.create("services", service())
    before = spec_of(world)
    change = {"spec": {"clusterIP": None, "clusterIPs": None, "ports": [{"port": 80}]}}
    world.patch("services", "web", change)
    assert spec_of(world)["clusterIP"] == before["clusterIP"]


def test_a_headless_service_has_none(world: Settled) -> None:
    world.create("services", service("headless", clusterIP="None"))
    assert spec_of(world, "headless")["clusterIPs"] == ["None"]


def test_the_api_server_has_a_service_where_pods_reach_it(world: Settled) -> None:
    assert spec_of(world, "kubernetes")["clusterIP"] == "203.0.113.6"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (service(ports=[]), "spec.ports: Required value"),
        (
            service(type="NodePort"),
            'spec.type: Unsupported value: "NodePort": supported values: "ClusterIP"',
        ),
        (
            service(ports=[{"port": 0}]),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (service(ports=[{"port": 1}, {"port": 2}]), "spec.ports[0].name: Required value"),
        (service(clusterIP="203.0.113.6"), "provided IP is already allocated"),
    ],
)
def test_a_service_that_makes_no_sense_is_refused(world: Settled, body: Obj, message: str) -> None:
    assert message in world.refused("services", body)


def test_an_address_never_changes(world: Settled) -> None:
    world.create("services", service())
    with pytest.raises(StatusError, match="may not change once set"):
        world.patch("services", "web", {"spec": {"clusterIP": "10.0.9.9"}})


def test_a_driver_has_the_defaults_of_the_api_only_modes_that_there_are_and_keeps_them(
    world: Settled,
) -> None:
    modes = {"volumeLifecycleModes": ["Fleeting"]}
    said = world.refused(DRIVERS, {"metadata": {"name": "d.io"}, "spec": modes})
    assert "volumeLifecycleModes: Unsupported value" in said
    world.create(DRIVERS, {"metadata": {"name": "d.io"}, "spec": {}})
    spec = spec_of(world, "d.io", DRIVERS)
    assert spec["volumeLifecycleModes"] == ["Persistent"]
    assert (spec["attachRequired"], spec["podInfoOnMount"]) == (True, False)
    with pytest.raises(StatusError, match="field is immutable"):
        world.patch(DRIVERS, "d.io", {"spec": {"volumeLifecycleModes": ["Ephemeral"]}})
