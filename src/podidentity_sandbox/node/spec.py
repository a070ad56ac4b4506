"""A pod's spec as values: what this kubelet acts on, and nothing else of it. Pure.

Also the amounts and fields of a pod that its containers may ask for, and the refusals of what
cannot be had, in a kubelet's words.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import msgspec

from podidentity_sandbox.apiserver import ApiRefusal


class HttpHeader(msgspec.Struct, frozen=True):
    """A header of a request."""

    name: str
    value: str


class HttpGet(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A probe that asks for a page."""

    path: str = "/"
    port: int
    scheme: str = "HTTP"
    host: str = ""
    """"" for the pod's address."""
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocket(msgspec.Struct, frozen=True, kw_only=True):
    """A probe that connects."""

    port: int
    host: str = ""


class Exec(msgspec.Struct, frozen=True):
    """A probe or hook that runs a program in the container."""

    command: tuple[str, ...]


class Probe(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A probe. Times in seconds; defaults are the API's."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    program: Exec | None = msgspec.field(name="exec", default=None)
    initial_delay: float = msgspec.field(name="initialDelaySeconds", default=0)
    period: float = msgspec.field(name="periodSeconds", default=10)
    timeout: float = msgspec.field(name="timeoutSeconds", default=1)
    successes: int = msgspec.field(name="successThreshold", default=1)
    failures: int = msgspec.field(name="failureThreshold", default=3)
    grace: float | None = msgspec.field(name="terminationGracePeriodSeconds", default=None)
    """Seconds between SIGTERM and SIGKILL when it has failed; None for the pod's."""

    @property
    def action(self) -> HttpGet | TcpSocket | Exec | None:
        """What it does; None where that is not served: then it fails."""
        return self.http_get or self.tcp_socket or self.program


class Mount(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A volume in a container."""

    volume: str = msgspec.field(name="name")
    path: str = msgspec.field(name="mountPath")
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False
    mount_propagation: str = ""

    @property
    def follow(self) -> bool:
        """Whether mounts that are made later appear in it, too."""
        return self.mount_propagation in {"HostToContainer", "Bidirectional"}


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A container of a pod; command and arguments are not expanded."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = msgspec.field(name="args", default=())
    working_dir: str = ""
    environment: tuple[Mapping[str, Any], ...] = msgspec.field(name="env", default=())
    environment_from: tuple[Any, ...] = msgspec.field(name="envFrom", default=())
    resources: Mapping[str, Any] = {}
    mounts: tuple[Mount, ...] = msgspec.field(name="volumeMounts", default=())
    security: Mapping[str, Any] = msgspec.field(name="securityContext", default_factory=dict)
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    ports: tuple[Mapping[str, Any], ...] = ()
    readiness_probe: Mapping[str, Any] = {}
    liveness_probe: Mapping[str, Any] = {}
    lifecycle: Mapping[str, Any] = {}
    termination_message_policy: str = ""

    @property
    def program(self) -> tuple[str, ...]:
        """What it runs where there is no image; () where it idles.

        Arguments alone are run where they read as a command, for most images have no entry point;
        where they begin with a flag they are for one.
        """
        if not self.command and self.arguments and self.arguments[0].startswith("-"):
            return ()
        return self.command + self.arguments

    @property
    def directory(self) -> str:
        return self.working_dir or "/"

    @property
    def readiness(self) -> Probe | None:
        return self._probe(self.readiness_probe)

    @property
    def liveness(self) -> Probe | None:
        return self._probe(self.liveness_probe)

    @property
    def pre_stop(self) -> Exec | None:
        """The hook that runs before SIGTERM; the API server takes none of another kind."""
        hook = self.lifecycle.get("preStop", {})
        return msgspec.convert(hook["exec"], Exec) if "exec" in hook else None

    def _probe(self, raw: Mapping[str, Any]) -> Probe | None:
        # A 0 is as good as absent: SetDefaults_Probe.
        said = {key: value for key, value in raw.items() if value}
        for action in {"httpGet", "tcpSocket"} & said.keys():
            said[action] = {**said[action], "port": self._number(said[action]["port"])}
        return msgspec.convert(said, Probe) if said else None

    def _number(self, port: int | str) -> int:
        named = {each.get("name"): each["containerPort"] for each in self.ports}
        return int(named.get(port, port))


class PodSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pod."""

    namespace: str
    name: str
    uid: str
    service_account: str = msgspec.field(name="serviceAccountName", default="default")
    host_network: bool = False
    restart_policy: str = "Always"
    grace: float
    hostname: str
    security: Mapping[str, Any] = msgspec.field(name="securityContext", default_factory=dict)
    volumes: Mapping[str, Mapping[str, Any]]
    init_containers: tuple[ContainerSpec, ...] = ()
    containers: tuple[ContainerSpec, ...]
    raw: Mapping[str, Any]
    """The object as it was first seen, for fieldRefs."""

    @property
    def cgroup(self) -> str:
        """Its cgroup where programs are containers, named as a kubelet does (cgroupfs driver)."""
        return f"kubepods/burstable/pod{self.uid}"

    @property
    def label(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_pod(pod: Mapping[str, Any]) -> PodSpec:
    """Read a pod that the API server has validated, freed of nulls and given its defaults."""
    metadata, spec = pod["metadata"], pod["spec"]
    made = {
        **{key: metadata[key] for key in ("namespace", "name", "uid")},
        "hostname": spec.get("hostname") or metadata["name"][:63].rstrip(".-"),
        "grace": grace_of(pod),
        "volumes": {volume["name"]: volume for volume in spec.get("volumes", ())},
        "raw": pod,
    }
    return msgspec.convert({**spec, **made}, PodSpec)


def grace_of(pod: Mapping[str, Any]) -> float:
    """Return how many seconds a pod's programs have between SIGTERM and SIGKILL."""
    of_spec = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return float(pod["metadata"].get("deletionGracePeriodSeconds", of_spec))


# ---- Refusals


class ContainerRefused(Exception):
    """The container cannot be started as its spec is; `reason` is that of its waiting state."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class VolumeRefused(Exception):
    """A volume cannot be set up, now or ever; the text is that of the FailedMount event."""


@contextmanager
def setting_up(volume: str) -> Iterator[None]:
    """Refuse the volume for whatever goes wrong meanwhile, in the words of a kubelet's event."""
    try:
        yield
    except (VolumeRefused, ApiRefusal, ValueError) as error:
        raise VolumeRefused(f'MountVolume.SetUp failed for volume "{volume}" : {error}') from error


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


def memory_limit(resources: Mapping[str, Any]) -> int:
    """Return the bytes of memory that a container may have; 0 if its resources name no limit.

    Raises ValueError for what is no quantity.
    """
    return math.ceil(amount(str(resources.get("limits", {}).get("memory", "0"))))


def resource_field(resources: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Return the amount that a `resourceFieldRef` names, in units of its divisor, rounded up.

    A limit that is not set is the node's; a request that is not set is the limit, if that is.
    Raises ValueError for what is no quantity.
    """
    which, _, resource = reference["resource"].partition(".")
    limit, request = (resources.get(kind, {}).get(resource) for kind in ("limits", "requests"))
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
