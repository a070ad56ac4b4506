"""A pod's spec as values: what this kubelet acts on, and nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """An httpGet probe. Times in seconds; defaults are the API's."""

    path: str
    port: int
    scheme: str
    host: str
    """"" for the pod's address."""
    headers: tuple[tuple[str, str], ...]
    initial_delay: float
    period: float
    timeout: float
    successes: int
    failures: int


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
    command = tuple(raw.get("command") or ())
    # Arguments alone are for an image's entry point, and there is no image.
    return ContainerSpec(
        name=raw["name"],
        image=raw.get("image", ""),
        command=command + tuple(raw.get("args") or ()) if command else (),
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


def _probe(raw: Mapping[str, Any] | None, ports: Mapping[str, int]) -> Probe | None:
    if not raw or "httpGet" not in raw:
        return None
    get = raw["httpGet"]
    port = get["port"]
    return Probe(
        path=get.get("path") or "/",
        port=ports[port] if isinstance(port, str) and port in ports else int(port),
        scheme=(get.get("scheme") or "HTTP").lower(),
        host=get.get("host") or "",
        headers=tuple((h["name"], h["value"]) for h in get.get("httpHeaders") or ()),
        initial_delay=float(raw.get("initialDelaySeconds") or 0),
        period=float(raw.get("periodSeconds") or 10),
        timeout=float(raw.get("timeoutSeconds") or 1),
        successes=int(raw.get("successThreshold") or 1),
        failures=int(raw.get("failureThreshold") or 3),
    )
