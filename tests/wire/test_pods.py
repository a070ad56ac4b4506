from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.attestation import (
    AttestationMode,
    ConnectionFacts,
    Sighting,
    SocketState,
    judge,
)
from podidentity.core.resources import ObjectRef, Phase, Pod
from podidentity.wire.pods import parse_pod

META = {"namespace": "shop", "name": "orders"}
HASH = "0123456789abcdef0123456789abcdef"
UID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"metadata":3}', b"\xff", b'{"metadata":{},"spec":' + b"[" * 10_000],
)
def test_what_no_api_server_stores_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a pod"):
        parse_pod(text)


def test_a_pod_is_read_with_what_the_rules_and_the_proof_need() -> None:
    found = parse_pod(
        json.dumps(
            {
                "metadata": {
                    "namespace": "shop",
                    "name": "orders-0",
                    "uid": "u1",
                    "labels": {"aadpodidbinding": "app"},
                    "annotations": {
                        "aadpodidentity.k8s.io/attestation": "address",
                        "ambient.istio.io/redirection": "enabled",
                        "kubernetes.io/config.hash": HASH,
                        "kubernetes.io/config.mirror": HASH,
                    },
                    "creationTimestamp": "2026-11-25T12:00:00Z",
                },
                "spec": {
                    "nodeName": "n1",
                    "serviceAccountName": "orders",
                    "hostNetwork": True,
                    "runtimeClassName": "kata",
                    "containers": [{"name": "c"}],
                    "volumes": [
                        {"name": "a", "emptyDir": {}},
                        {"name": "b", "csi": {"driver": "secrets-store.csi.k8s.io"}},
                        {"name": "c", "csi": {"driver": "secrets-store.csi.k8s.io"}},
                    ],
                },
                "status": {
                    "phase": "Running",
                    "podIP": "10.0.0.1",
                    "podIPs": [{"ip": "10.0.0.1"}, {"ip": "FD00::0:1"}, {"ip": "rubbish"}],
                    "startTime": "2026-11-25T12:00:05Z",
                },
            }
        ).encode()
    )
    assert found.ref == ObjectRef("shop", "orders-0")
    assert found.addresses == ("10.0.0.1", "fd00::1")
    assert (found.uid, found.node, found.service_account) == ("u1", "n1", "orders")
    assert (found.selector, found.attestation, found.config_hash) == ("app", "address", HASH)
    assert (found.phase, found.host_network) == (Phase.RUNNING, True)
    assert found.started == 1795608005.0
    assert found.csi_drivers == {"secrets-store.csi.k8s.io"}
    assert (found.runtime_class, found.in_ambient_mesh) == ("kata", True)


@pytest.mark.parametrize(
    ("status", "addresses", "phase"),
    [
        ({}, (), Phase.PENDING),
        ({"podIP": "10.0.0.1", "phase": "Failed"}, ("10.0.0.1",), Phase.FAILED),
        ({"podIP": "", "podIPs": None, "phase": "Odd"}, (), Phase.UNKNOWN),
        ({"podIP": "10.0.0.1", "podIPs": []}, ("10.0.0.1",), Phase.PENDING),
        ({"podIPs": [{}, {"ip": "10.0.0.2"}]}, ("10.0.0.2",), Phase.PENDING),
    ],
)
def test_a_pod_may_lack_almost_everything(
    status: Any, addresses: tuple[str, ...], phase: Phase
) -> None:
    found = parse_pod(json.dumps({"metadata": META, "status": status}).encode())
    assert (found.addresses, found.phase) == (addresses, phase)
    assert (found.service_account, found.selector, found.started) == ("default", "", 0.0)
    assert (found.csi_drivers, found.host_network) == (frozenset(), False)
    assert (found.runtime_class, found.in_ambient_mesh) == ("", False)


@pytest.mark.parametrize(
    "time", ["0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2016-12-31T23:59:60Z", ""]
)
def test_a_time_that_only_an_api_server_can_tell_makes_no_pod_unreadable(time: str) -> None:
    """Who may write his pod's status may have it start in the year 0."""
    meta = {**META, "creationTimestamp": "2026-11-25T12:00:00Z"}
    found = parse_pod(json.dumps({"metadata": meta, "status": {"startTime": time}}).encode())
    assert found.started == 1795608000.0


@pytest.mark.parametrize("time", [None, "", "0000-01-01T00:00:00Z"])
def test_a_pod_that_says_nothing_has_nothing(time: str | None) -> None:
    meta, status = {"creationTimestamp": time}, {"startTime": time}
    spec: dict[str, Any] = {"volumes": [{"csi": {}}]}
    found = parse_pod(json.dumps({"metadata": meta, "spec": spec, "status": status}).encode())
    nothing = Pod(ref=ObjectRef("", ""), uid="", phase=Phase.PENDING)
    assert found == replace(nothing, csi_drivers=frozenset({""}))
    assert (found.node, found.attestation, found.probe, found.started) == ("", "", "", 0.0)


def test_a_pod_that_has_not_started_is_as_old_as_its_object() -> None:
    meta = {**META, "creationTimestamp": "2026-11-25T12:00:00Z"}
    assert parse_pod(json.dumps({"metadata": meta}).encode()).started == 1795608000.0


MANY = 20_000


@pytest.mark.parametrize("many", [99, 100, 101])
def test_a_pod_with_more_than_a_hundred_labels_or_drivers_keeps_none(many: int) -> None:
    labels = {f"label-{number:03}": "x" for number in range(many)}
    volumes = [{"csi": {"driver": f"d-{number}"}} for number in range(many)]
    whole = {"metadata": {**META, "labels": labels}, "spec": {"volumes": volumes}}
    found = parse_pod(json.dumps(whole).encode())
    assert len(found.csi_drivers) == (many if many <= 100 else 0)
    assert found.labels == (labels if many <= 100 else {})


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"labels": {f"a-{each:05}": "x" * 40 for each in range(MANY)}}},
        {"metadata": {"labels": {f"{each:03}{'a' * 250}/{'b' * 63}": "" for each in range(100)}}},
        {"metadata": {"annotations": {"aadpodidentity.k8s.io/attestation": "x" * 200_000}}},
        {"metadata": {"annotations": {"aadpodidentity.k8s.io/probe": "x" * 200_000}}},
        {"spec": {"volumes": [{"csi": {"driver": f"d-{each}"}} for each in range(MANY)]}},
    ],
    ids=["many labels", "long labels", "a waiver", "a question", "volumes"],
)
def test_of_a_pod_of_a_megabyte_a_few_kilobytes_are_kept(fields: dict[str, Any]) -> None:
    """Each agent keeps those of its node, and a tenant may make hundreds for one node."""
    meta = {**META, **fields.get("metadata", {})}
    found = parse_pod(json.dumps({**fields, "metadata": meta}).encode())
    assert len(repr(found)) < 20_000


def test_of_many_labels_and_volumes_those_that_mean_something_are_kept() -> None:
    labels = {f"a-{each:05}": "x" for each in range(MANY)} | {"aadpodidbinding": "app", "z": "x"}
    volumes = [{"csi": {"driver": f"d-{each}"}} for each in range(MANY)]
    volumes.append({"csi": {"driver": "secrets-store.csi.k8s.io"}})
    whole = {"metadata": {**META, "labels": labels}, "spec": {"volumes": volumes}}
    found = parse_pod(json.dumps(whole).encode())
    assert found.selector == "app"
    assert found.labels == {"aadpodidbinding": "app"}
    assert "secrets-store.csi.k8s.io" in found.csi_drivers


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_keeps_no_labels(phase: str) -> None:
    meta = {**META, "labels": {"aadpodidbinding": "app"}}
    found = parse_pod(json.dumps({"metadata": meta, "status": {"phase": phase}}).encode())
    assert (found.phase, found.labels) == (phase, {})


def test_a_probe_is_asked_for_by_an_annotation() -> None:
    meta = {**META, "annotations": {"aadpodidentity.k8s.io/probe": "7"}}
    assert parse_pod(json.dumps({"metadata": meta}).encode()).probe == "7"


def test_neither_a_runtime_class_nor_a_mesh_is_what_a_pod_calls_itself() -> None:
    claims = {"runtimeClassName": "kata", "ambient.istio.io/redirection": "disabled"}
    meta = {**META, "labels": claims, "annotations": claims}
    spec = {"runtimeClassName": None}
    found = parse_pod(json.dumps({"metadata": meta, "spec": spec}).encode())
    assert (found.runtime_class, found.in_ambient_mesh) == ("", False)


def annotated(name: str, uid: str, **annotations: str) -> Pod:
    prefixed = {f"kubernetes.io/config.{key}": value for key, value in annotations.items()}
    meta = {"namespace": "tenant", "name": name, "uid": uid, "annotations": prefixed}
    return parse_pod(json.dumps({"metadata": meta}).encode())


@pytest.mark.parametrize(
    "annotations",
    [
        {"hash": HASH},
        {"mirror": HASH},
        {"hash": HASH, "mirror": ""},
        {"hash": HASH, "mirror": HASH.replace("0", "1")},
        {"hash": UID, "mirror": UID},
        {"hash": HASH.upper(), "mirror": HASH.upper()},
        {"hash": f"{HASH}\n", "mirror": f"{HASH}\n"},
        {"hash": "", "mirror": ""},
    ],
)
def test_only_what_the_kubelet_writes_of_a_static_pod_is_a_config_hash(
    annotations: dict[str, str],
) -> None:
    assert annotated("twin", "u2", **annotations).config_hash == ""


@given(st.uuids(), st.text("0123456789abcdef-", max_size=40))
def test_no_pod_is_proven_by_a_hash_that_is_a_neighbours_uid(uid: UUID, text: str) -> None:
    victim = annotated("victim", str(uid))
    socket = Sighting(network="cni-1", state=SocketState.OPEN, pod=victim.uid)
    facts = ConnectionFacts(accepted=True, sightings=(socket,))
    for claim in (str(uid), uid.hex, text):
        twin = annotated("aaa-twin", "u2", hash=claim, mirror=claim)
        for candidates in ([twin], [twin, victim], [victim, twin]):
            assert judge(facts, candidates, AttestationMode.KERNEL).pod_uid == victim.uid
