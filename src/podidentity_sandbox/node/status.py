"""A pod's status, computed from what its containers are doing: pure.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from podidentity_sandbox.node.spec import ContainerSpec, PodSpec

LONGEST_BACKOFF = 300.0
"""Seconds, as the kubelet's; a container that ran twice as long starts again from the first."""


@dataclass(slots=True, kw_only=True)
class ContainerState:
    """The state of one container: exactly one of waiting, running and terminated."""

    waiting: dict[str, Any] | None = field(default_factory=lambda: {"reason": "ContainerCreating"})
    running: dict[str, Any] | None = None
    terminated: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    """How the run before this one ended."""
    restarts: int = 0
    ready: bool = False
    started: bool = False
    """There are no startup probes to wait for."""
    identity: str = ""
    """`containerID` of its present or latest run."""

    def wait(self, reason: str, message: str = "") -> None:
        self.last = self.terminated or self.last
        self.waiting = {"reason": reason, **({"message": message} if message else {})}
        self.running = self.terminated = None
        self.ready = self.started = False

    def run(self, identity: str, now: datetime) -> None:
        self.last = self.terminated or self.last
        self.waiting = self.terminated = None
        self.running = {"startedAt": stamp(now)}
        self.identity = identity

    def end(self, code: int, now: datetime, *, reason: str = "", message: str = "") -> None:
        started = (self.running or {}).get("startedAt", stamp(now))
        self.waiting = self.running = None
        self.ready = self.started = False
        self.terminated = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            **({"message": message} if message else {}),
            "startedAt": started,
            "finishedAt": stamp(now),
            "containerID": self.identity,
        }


def stamp(moment: datetime) -> str:
    """Return a time as the API writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def restart_delay(restarts: int) -> float:
    """Return seconds to wait before restart number `restarts` (1: at once; then 10, 20, 40…)."""
    if restarts <= 1:
        return 0.0
    return min(LONGEST_BACKOFF, 10.0 * math.pow(2, min(restarts - 2, 10)))


def restarts_after(policy: str, code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def phase(policy: str, states: Sequence[ContainerState], *, initialized: bool) -> str:
    if not initialized:
        return "Pending"
    ended = [s.terminated["exitCode"] for s in states if s.terminated is not None]
    if policy != "Always" and len(ended) == len(states):
        if not any(restarts_after(policy, code) for code in ended):
            return "Failed" if any(ended) else "Succeeded"
        return "Running"
    started = any(s.running or s.terminated or s.last for s in states)
    return "Running" if started else "Pending"


def pod_status(
    spec: PodSpec,
    inits: Sequence[ContainerState],
    states: Sequence[ContainerState],
    *,
    host_address: str,
    pod_address: str,
    started: datetime,
    initialized: bool,
    failed: bool = False,
    previous: Mapping[str, Any],
    now: datetime,
) -> dict[str, Any]:
    """Return the whole `status`; conditions that did not change keep their transition time.

    Addresses are "" until there are some; `failed`: an init container failed for good.
    """
    is_phase = "Failed" if failed else phase(spec.restart_policy, states, initialized=initialized)
    before = {each["type"]: each for each in previous.get("conditions") or ()}
    addresses = [{"ip": pod_address}] if pod_address else []
    return {
        "phase": is_phase,
        "conditions": [
            _condition(before.get(kind, {}), kind, holds, why_not, now)
            for kind, holds, why_not in _conditions(
                spec, states, is_phase, pod_address=pod_address, initialized=initialized
            )
        ],
        "hostIP": host_address or None,
        "hostIPs": [{"ip": host_address}] if host_address else None,
        "podIP": pod_address or None,
        "podIPs": addresses or None,
        "qosClass": (spec.raw.get("status") or {}).get("qosClass", "BestEffort"),
        "startTime": stamp(started),
        "initContainerStatuses": list(map(_container_status, spec.init_containers, inits)) or None,
        "containerStatuses": list(map(_container_status, spec.containers, states)),
    }


def _conditions(
    spec: PodSpec,
    states: Sequence[ContainerState],
    is_phase: str,
    *,
    pod_address: str,
    initialized: bool,
) -> Iterator[tuple[str, bool, dict[str, str]]]:
    """Yield each condition's type, whether it holds, and reason and message where it does not."""
    unready = [c.name for c, s in zip(spec.containers, states, strict=True) if not s.ready]
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(is_phase)
    why_not = {"reason": ended or "ContainersNotReady"}
    if not ended:
        why_not["message"] = f"containers with unready status: [{' '.join(unready)}]"
    inits = " ".join(container.name for container in spec.init_containers)
    not_yet = {
        "reason": "ContainersNotInitialized",
        "message": f"containers with incomplete status: [{inits}]",
    }
    yield "PodReadyToStartContainers", bool(pod_address) and not ended, {}
    yield "Initialized", initialized, not_yet
    yield "Ready", not unready and not ended, why_not
    yield "ContainersReady", not unready and not ended, why_not
    yield "PodScheduled", True, {}


def _condition(
    old: Mapping[str, Any], kind: str, holds: bool, why_not: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    status = "True" if holds else "False"
    same = old.get("status") == status and old.get("lastTransitionTime")
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": old["lastTransitionTime"] if same else stamp(now),
        **({} if holds else why_not),
    }


def _container_status(spec: ContainerSpec, state: ContainerState) -> dict[str, Any]:
    present = {
        kind: value
        for kind, value in (
            ("waiting", state.waiting),
            ("running", state.running),
            ("terminated", state.terminated),
        )
        if value is not None
    }
    return {
        "name": spec.name,
        "image": spec.image,
        "imageID": "",
        "containerID": state.identity,
        "ready": state.ready,
        "started": state.started,
        "restartCount": state.restarts,
        "state": present,
        "lastState": {"terminated": state.last} if state.last else {},
    }
