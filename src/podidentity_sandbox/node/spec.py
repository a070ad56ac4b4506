"""A pod's spec as values: what this kubelet acts on, and nothing else of it. Pure.

Also the amounts and fields of a pod that its containers may ask for, and the refusals of what
cannot be had, in a kubelet's words.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGet:
    """A probe that asks for a page."""

    path: str
    port: int
    scheme: str
    host: str
    """"" for the pod's address."""
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSocket:
    """A probe that connects."""

    port: int
    host: str


@dataclass(frozen=True, slots=True)
class Exec:
    """A probe or hook that runs a program in the container."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe. Times in seconds; defaults are the API's."""

    action: HttpGet | TcpSocket | Exec | None
    """None: one that is not served, and fails."""
    initial_delay: float
    period: float
    timeout: float
    successes: int
    failures: int
    grace: float | None
    """Seconds between SIGTERM and SIGKILL when it has failed; None for the pod's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A volume in a container."""

    volume: str
    path: str
    sub_path: str
    sub_path_expression: str
    """May name variables of the container's environment."""
    read_only: bool
    follow: bool
    """mountPropagation HostToContainer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container of a pod."""

    name: str
    image: str
    command: tuple[str, ...]
    """Command and arguments, not yet expanded; () for what an image would bring: it idles."""
    directory: str
    environment: tuple[Mapping[str, Any], ...]
    environment_from: tuple[Mapping[str, Any], ...]
    resources: Mapping[str, Any]
    mounts: tuple[Mount, ...]
    security: Mapping[str, Any]
    stdin: bool
    stdin_once: bool
    tty: bool
    readiness: Probe | None
    liveness: Probe | None
    pre_stop: Exec | None
    """The preStop hook, which runs before SIGTERM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """A pod."""

    namespace: str
    name: str
    uid: str
    service_account: str
    host_network: bool
    restart_policy: str
    grace: float
    hostname: str
    security: Mapping[str, Any]
    volumes: Mapping[str, Mapping[str, Any]]
    init_containers: tuple[ContainerSpec, ...]
    containers: tuple[ContainerSpec, ...]
    raw: Mapping[str, Any] = field(repr=False)
    """The object as it was first seen, for fieldRefs."""

    @property
    def cgroup(self) -> str:
        """Its cgroup where programs are containers, named as a kubelet does (cgroupfs driver)."""
        return f"kubepods/burstable/pod{self.uid}"

    @property
    def label(self) -> str:
        """Its namespace and name, as people write it."""
        return f"{self.namespace}/{self.name}"


def parse_pod(pod: Mapping[str, Any]) -> PodSpec:
    """Read a pod that the API server has validated and given its defaults."""
    metadata, spec = pod["metadata"], pod["spec"]
    return PodSpec(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        service_account=spec.get("serviceAccountName") or "default",
        host_network=bool(spec.get("hostNetwork")),
        restart_policy=spec.get("restartPolicy") or "Always",
        grace=grace_of(pod),
        hostname=spec.get("hostname") or metadata["name"][:63].rstrip(".-"),
        security=spec.get("securityContext") or {},
        volumes={volume["name"]: volume for volume in spec.get("volumes") or ()},
        init_containers=tuple(map(_container, spec.get("initContainers") or ())),
        containers=tuple(map(_container, spec["containers"])),
        raw=pod,
    )


def grace_of(pod: Mapping[str, Any]) -> float:
    """Return how many seconds a pod's programs have between SIGTERM and SIGKILL."""
    metadata, spec = pod["metadata"], pod["spec"]
    for value in (
        metadata.get("deletionGracePeriodSeconds"),
        spec.get("terminationGracePeriodSeconds"),
    ):
        if value is not None:
            return float(value)
    return 30.0


def _container(raw: Mapping[str, Any]) -> ContainerSpec:
    ports = {
        port["name"]: port["containerPort"] for port in raw.get("ports") or () if "name" in port
    }
    return ContainerSpec(
        name=raw["name"],
        image=raw.get("image", ""),
        command=_command(raw),
        directory=raw.get("workingDir") or "/",
        environment=tuple(raw.get("env") or ()),
        environment_from=tuple(raw.get("envFrom") or ()),
        resources={"resources": raw.get("resources") or {}},
        mounts=tuple(map(_mount, raw.get("volumeMounts") or ())),
        security=raw.get("securityContext") or {},
        stdin=bool(raw.get("stdin")),
        stdin_once=bool(raw.get("stdinOnce")),
        tty=bool(raw.get("tty")),
        readiness=_probe(raw.get("readinessProbe"), ports),
        liveness=_probe(raw.get("livenessProbe"), ports),
        pre_stop=_hook((raw.get("lifecycle") or {}).get("preStop")),
    )


def _mount(raw: Mapping[str, Any]) -> Mount:
    return Mount(
        volume=raw["name"],
        path=raw["mountPath"],
        sub_path=raw.get("subPath") or "",
        sub_path_expression=raw.get("subPathExpr") or "",
        read_only=bool(raw.get("readOnly")),
        follow=raw.get("mountPropagation") in {"HostToContainer", "Bidirectional"},
    )


def _command(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the program of a container.

    There is no image: arguments alone are run where they read as a command, for most images have no
    entry point; where they begin with a flag they are for one, and the container idles.
    """
    command, arguments = tuple(raw.get("command") or ()), tuple(raw.get("args") or ())
    if not command and arguments and arguments[0].startswith("-"):
        return ()
    return command + arguments


def _probe(raw: Mapping[str, Any] | None, ports: Mapping[str, int]) -> Probe | None:
    if not raw:
        return None
    grace = raw.get("terminationGracePeriodSeconds")
    return Probe(
        action=_action(raw, ports),
        initial_delay=float(raw.get("initialDelaySeconds") or 0),
        period=float(raw.get("periodSeconds") or 10),
        timeout=float(raw.get("timeoutSeconds") or 1),
        successes=int(raw.get("successThreshold") or 1),
        failures=int(raw.get("failureThreshold") or 3),
        grace=None if grace is None else float(grace),
    )


def _hook(raw: Mapping[str, Any] | None) -> Exec | None:
    """Read a lifecycle hook; the API server takes none of another kind."""
    return Exec(tuple(raw["exec"]["command"])) if raw and "exec" in raw else None


def _action(raw: Mapping[str, Any], ports: Mapping[str, int]) -> HttpGet | TcpSocket | Exec | None:
    def number(port: int | str) -> int:
        return ports[port] if isinstance(port, str) and port in ports else int(port)

    if get := raw.get("httpGet"):
        return HttpGet(
            path=get.get("path") or "/",
            port=number(get["port"]),
            scheme=(get.get("scheme") or "HTTP").lower(),
            host=get.get("host") or "",
            headers=tuple((h["name"], h["value"]) for h in get.get("httpHeaders") or ()),
        )
    if tcp := raw.get("tcpSocket"):
        return TcpSocket(port=number(tcp["port"]), host=tcp.get("host") or "")
    if program := raw.get("exec"):
        return Exec(tuple(program["command"]))
    return None


# ---- Refusals


class ContainerRefused(Exception):
    """The container cannot be started as its spec is; `reason` is that of its waiting state."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class VolumeRefused(Exception):
    """A volume cannot be set up, now or ever; the text is that of the FailedMount event."""


# ---- Amounts of CPU and memory, as `resourceFieldRef` shows them
#
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/

NODE = {"cpu": "2", "memory": "4Gi"}
"""Capacity of a node of the sandbox: the limit of a container that names none."""
_UNITS = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(
    r"(?P<number>[+-]?([0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?P<unit>n|u|m|[kMGTPE]|[KMGTPE]i|)(?P<power>(?<=[0-9.])[eE][+-]?[0-9]{1,3})?"
)
_BAD = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def amount(text: str) -> Fraction:
    """Return a quantity as a number; raise ValueError, in the words of resource.ParseQuantity."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(_BAD)
    return Fraction(found["number"] + (found["power"] or "")) * _UNITS[found["unit"]]


def memory_limit(container: Mapping[str, Any]) -> int:
    """Return the bytes of memory that a container may have; 0 if it names no limit.

    Raises ValueError for what is no quantity.
    """
    limits = (container.get("resources") or {}).get("limits") or {}
    return math.ceil(amount(str(limits.get("memory", "0"))))


def resource_field(container: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Return the amount that a `resourceFieldRef` names, in units of its divisor, rounded up.

    A limit that is not set is the node's; a request that is not set is the limit, if that is.
    Raises ValueError for what is no quantity.
    """
    which, _, resource = reference["resource"].partition(".")
    given = container.get("resources") or {}
    limit, request = ((given.get(kind) or {}).get(resource) for kind in ("limits", "requests"))
    value = limit if which == "limits" else request or limit
    if value is None:
        value = NODE.get(resource, "0") if which == "limits" else "0"
    divisor = amount(str(reference.get("divisor") or "1")) or Fraction(1)
    return str(math.ceil(amount(str(value)) / divisor))


# ---- Fields of the pod, as `fieldRef` shows them in variables and files
#
# https://kubernetes.io/docs/concepts/workloads/pods/downward-api/

_ONE_OF_MANY = re.compile(r"metadata\.(labels|annotations)\['.*'\]")


def pod_fields(pod: Mapping[str, Any], *, pod_address: str, host_address: str) -> dict[str, str]:
    """Return what `fieldRef` can name, by its path."""
    metadata, spec = pod["metadata"], pod["spec"]
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec["nodeName"],
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": pod_address,
        "status.podIPs": pod_address,
        "status.hostIP": host_address,
        "status.hostIPs": host_address,
    }
    for kind in ("labels", "annotations"):
        entries = sorted((metadata.get(kind) or {}).items())
        fields |= {f"metadata.{kind}['{key}']": value for key, value in entries}
        lines = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in entries)
        fields[f"metadata.{kind}"] = "\n".join(lines)
    return fields


def field_value(fields: Mapping[str, str], path: str) -> str:
    """Return one field; raise ValueError, in a kubelet's words, for one that there never is.

    A label or annotation that is not there is empty.
    """
    if path not in fields and not _ONE_OF_MANY.fullmatch(path):
        raise ValueError(f"unsupported fieldPath: {path}")
    return fields.get(path, "")
