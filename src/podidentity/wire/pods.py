"""Pods, from JSON to the facts that the rules and the proof use.

The structs name only the fields that we read, so a pod of 10 kB costs microseconds.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime
from sys import intern

import msgspec

from podidentity.core.budgets import BUDGETS
from podidentity.core.delegation import CSI_DRIVER
from podidentity.core.resources import (
    ATTESTATION_ANNOTATION,
    BINDING_LABEL,
    ENDED,
    PROBE_ANNOTATION,
    ObjectRef,
    Phase,
    Pod,
)
from podidentity.wire import BROKEN_JSON, decoded

_CONFIG_HASH, _CONFIG_MIRROR = "kubernetes.io/config.hash", "kubernetes.io/config.mirror"
_AMBIENT = "ambient.istio.io/redirection"
"""Istio's own, written when it has set a pod up (https://istio.io/latest/docs/reference/config/
annotations/). It is what people are told by, and nothing is decided by it."""
MOST = 100
"""Labels, and drivers of volumes, of a pod that are kept; an exception names at most as many."""
_LONGEST_LABELS = BUDGETS["Pod"].object
_LONGEST = 400
"""Characters of an annotation that are kept: the longest that means something has 334."""
_NO_DRIVERS: frozenset[str] = frozenset()
"""One for all pods: each has 216 bytes."""
_MD5 = re.compile(r"[0-9a-f]{32}", re.ASCII)


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: msgspec.Raw = msgspec.Raw(b"null")
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None


class _Csi(msgspec.Struct):
    driver: str = ""


class _Volume(msgspec.Struct):
    csi: _Csi | None = None


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    runtime_class_name: str | None = None
    volumes: list[_Volume] | None = None


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[dict[str, str]] | None = msgspec.field(name="podIPs", default=None)
    start_time: str | None = None


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _BindingLabel(msgspec.Struct):
    selector: str | None = msgspec.field(name=BINDING_LABEL, default=None)


_POD = msgspec.json.Decoder(_Pod)
_LABELS = msgspec.json.Decoder(dict[str, str] | None)
_BINDING_LABEL = msgspec.json.Decoder(_BindingLabel)


def parse_pod(raw: bytes | msgspec.Raw) -> Pod:
    """Return the pod in `raw`; raise ValueError for any other JSON."""
    try:
        pod = decoded(_POD, raw)
        phase = _phase(pod.status.phase)
        # Nothing is decided by the labels of a pod that has ended.
        labels = {} if phase in ENDED else _labels(pod.metadata.labels)
    except BROKEN_JSON as error:
        raise ValueError(f"not a pod: {error}") from error
    meta, status = pod.metadata, pod.status
    annotations = meta.annotations or {}
    return Pod(
        ref=ObjectRef(intern(meta.namespace), meta.name),
        uid=meta.uid,
        node=pod.spec.node_name,
        service_account=pod.spec.service_account_name or "default",
        labels=labels,
        addresses=_addresses(status),
        host_network=pod.spec.host_network,
        phase=phase,
        started=_seconds(status.start_time) or _seconds(meta.creation_timestamp),
        attestation=annotations.get(ATTESTATION_ANNOTATION, "")[:_LONGEST],
        probe=annotations.get(PROBE_ANNOTATION, "")[:_LONGEST],
        csi_drivers=_drivers(pod.spec),
        config_hash=_config_hash(annotations),
        runtime_class=pod.spec.runtime_class_name or "",
        in_ambient_mesh=annotations.get(_AMBIENT) == "enabled",
    )


def _labels(raw: msgspec.Raw) -> dict[str, str]:
    """Return the labels; of labels over their budget the binding label alone.

    A tenant may give a pod 100,000 labels, and each NMI keeps the pods of its node.
    """
    if len(raw) <= _LONGEST_LABELS:
        labels = _LABELS.decode(raw) or {}
        if len(labels) <= MOST:
            return labels
    selector = _BINDING_LABEL.decode(raw).selector
    return {} if selector is None else {BINDING_LABEL: selector}


def _drivers(spec: _Spec) -> frozenset[str]:
    found = frozenset(volume.csi.driver for volume in spec.volumes or () if volume.csi)
    return (found if len(found) <= MOST else found & {CSI_DRIVER}) or _NO_DRIVERS


def _config_hash(annotations: Mapping[str, str]) -> str:
    """Return the config hash of a static pod's mirror; "" for every other pod.

    Any tenant may write these annotations. A kubelet writes the same MD5 sum into both
    (pkg/kubelet/pod/mirror_client.go). Uids of the API server have dashes, so no pod can claim the
    uid of another.
    """
    found = annotations.get(_CONFIG_HASH, "")
    is_mirror = annotations.get(_CONFIG_MIRROR) == found
    return found if is_mirror and _MD5.fullmatch(found) else ""


def _addresses(status: _Status) -> tuple[str, ...]:
    texts = [entry.get("ip", "") for entry in status.pod_ips or []] or [status.pod_ip]
    return tuple(dict.fromkeys(address for text in texts if (address := _canonical(text))))


def _seconds(time: str | None) -> float:
    """Return a time in seconds since 1970; 0 for none that Python can tell.

    A tenant who may write a pod's status can have the API server tell of the years 0 and 10000.
    """
    if not time:
        return 0.0
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _canonical(text: str) -> str:
    try:
        return ipaddress.ip_address(text).compressed
    except ValueError:
        return ""


def _phase(text: str) -> Phase:
    try:
        return Phase(text or Phase.PENDING)
    except ValueError:
        return Phase.UNKNOWN
