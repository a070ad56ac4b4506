"""A pod's spec as values: what this kubelet acts on, and nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Sleep:
    """A hook that waits."""

    seconds: float


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
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    pre_stop: Exec | Sleep | None
    """What comes before SIGTERM."""


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
        startup=_probe(raw.get("startupProbe"), ports),
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
    """Return what a container runs.

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


def _hook(raw: Mapping[str, Any] | None) -> Exec | Sleep | None:
    """Read a lifecycle hook; of kind httpGet none is made."""
    if raw and "exec" in raw:
        return Exec(tuple(raw["exec"]["command"]))
    if raw and "sleep" in raw:
        return Sleep(float(raw["sleep"]["seconds"]))
    return None


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
