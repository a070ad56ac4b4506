"""A sandbox of one node, the pods that tests give it, and what tests ask of them."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.node.client import ExecResult, execute
from podidentity_sandbox.node.logs import entries
from podidentity_sandbox.plan import NodePlan, Plan
from podidentity_sandbox.world.api import Api, ApiError, ready
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.inspection import ask, status


def container(*command: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """Return a container; without a command it idles."""
    return {
        "name": name,
        "image": "none",
        **({"command": list(command)} if command else {}),
        **more,
    }


def script(text: str, **more: Any) -> dict[str, Any]:
    """Return a container that runs a shell script."""
    return container("sh", "-c", text, **more)


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a Pod; grace is short, for shells do not heed SIGTERM as process 1."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}"},
        "spec": {
            "containers": list(containers or (container(),)),
            "nodeName": "node-0",
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            **spec,
        },
    }


# ---- The sandbox

PODS = "/api/v1/namespaces/default/pods"
PATIENCE = 60.0
"""Seconds after which a test fails instead of waiting on; of an idle machine none takes two."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A running sandbox."""

    folder: Folder
    plan: Plan
    api: Api

    @property
    def node(self) -> NodePlan:
        return self.plan.nodes[0]

    def create(self, pod: Object) -> None:
        """Create a pod, and leave its place to the scheduler."""
        spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
        metadata = {key: value for key, value in pod["metadata"].items() if key != "uid"}
        self.api.request("POST", PODS, {**pod, "metadata": metadata, "spec": spec})

    def get(self, name: str) -> Object:
        return self.api.request("GET", f"{PODS}/{name}")

    def until(self, name: str, holds: Callable[[Object], bool] = ready) -> Object:
        """Wait until the pod is as `holds` says, and return it."""
        left = self.api.wait_for(PODS, [name], holds, PATIENCE)
        assert not left, f"{name} is not so: {left}"
        return self.get(name)

    def run(self, pod: Object, holds: Callable[[Object], bool] = ready) -> Object:
        """Create a pod and wait until it is as `holds` says."""
        self.create(pod)
        return self.until(pod["metadata"]["name"], holds)

    def delete(self, name: str, grace: int | None = None) -> None:
        """Delete a pod, and wait until its object is gone."""
        version = self.api.request("GET", PODS)["metadata"]["resourceVersion"]
        query = "" if grace is None else f"?gracePeriodSeconds={grace}"
        self.api.request("DELETE", f"{PODS}/{name}{query}")
        self.until_gone(name, version)

    def until_gone(self, name: str, version: str) -> None:
        """Wait for the end of the pod's object, after resource version `version`."""
        for kind, item in self.api.watch(PODS, version, PATIENCE):
            if kind == "DELETED" and item["metadata"]["name"] == name:
                return
        raise AssertionError(f"{name} is still there: {self.get(name)}")

    def sh(self, name: str, text: str, *, stdin: bytes = b"") -> ExecResult:
        """Run a shell script in the pod."""
        return self.execute(name, "sh", "-c", text, stdin=stdin)

    def execute(self, name: str, *command: str, stdin: bytes = b"", **more: Any) -> ExecResult:
        return asyncio.run(execute(self.plan, "default", name, command, stdin=stdin, **more))

    def says(self, name: str, text: str) -> str:
        """Return what a shell script prints in the pod, which must succeed."""
        result = self.sh(name, text)
        assert result.exit == 0, result.stderr.decode()
        return result.stdout.decode().strip()

    def log(self, pod: Object, container: str = "main") -> str:
        """Return what a container has written in its latest two runs."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        folder = self.plan.path / "nodes" / self.node.name / f"default_{name}_{uid}" / container
        found = b""
        for path in sorted(folder.glob("*.log")):
            with path.open("rb") as file:
                found += b"".join(entry.text for entry in entries(file))
        return found.decode()

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return reason and message of the pod's events, in the order of their creation."""
        events = self.api.request("GET", "/api/v1/namespaces/default/events")["items"]
        return [
            (event["reason"], event["message"])
            for event in sorted(events, key=lambda e: int(e["metadata"]["resourceVersion"]))
            if event["involvedObject"]["name"] == name
        ]

    def event(self, name: str, reason: str) -> str:
        """Wait for an event of that reason on the pod, and return its message."""
        path = "/api/v1/namespaces/default/events"
        version = self.api.request("GET", path)["metadata"]["resourceVersion"]
        for found, message in self.events(name):
            if found == reason:
                return message
        for _, event in self.api.watch(path, version, PATIENCE):
            if (event["involvedObject"]["name"], event["reason"]) == (name, reason):
                return str(event["message"])
        raise AssertionError(f"no event {reason} on {name}: {self.events(name)}")

    def part(self, operation: str, name: str) -> None:
        """Pause, resume, kill or start a part of the sandbox."""
        ask(self.folder.control, {"op": operation, "part": name})

    def of_node(self) -> Object:
        """Return what the sandbox says of the node's part."""
        found: Object = next(
            part for part in status(self.folder).parts if part["name"] == self.node.name
        )
        return found

    @contextmanager
    def api_server_away(self) -> Iterator[None]:
        """Let the API server answer nobody meanwhile."""
        self.part("pause", "cluster")
        try:
            yield
        finally:
            self.part("resume", "cluster")

    def on_node(self, text: str) -> str:
        """Return what a shell script prints in the node's own namespaces."""
        enter = ["nsenter", "--target", str(self.of_node()["pid"]), "--mount", "--net", "--pid"]
        if self.plan.rootless:
            enter += ["--user", "--preserve-credentials"]
        ran = subprocess.run(
            [*enter, "sh", "-c", text], capture_output=True, text=True, check=True, timeout=60
        )
        return ran.stdout.strip()

    def clear(self) -> None:
        """Delete every pod, and wait until all are gone."""
        for pod in self.api.request("GET", PODS)["items"]:
            with suppress(ApiError):  # one that was going already
                self.delete(pod["metadata"]["name"], grace=0)
        assert not self.api.request("GET", PODS)["items"]


def eventually(holds: Callable[[], bool]) -> None:
    """Return when it holds: nothing tells of what is looked at."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.05)


def terminated(pod: Object) -> bool:
    """Whether the pod's first container has ended."""
    return "terminated" in _state(pod)


def waits_for(reason: str) -> Callable[[Object], bool]:
    """Return whether the pod's first container waits for that reason."""
    return lambda pod: _state(pod).get("waiting", {}).get("reason") == reason


def restarted(pod: Object) -> bool:
    """Whether the pod's first container runs after a restart."""
    statuses = pod["status"].get("containerStatuses") or [{}]
    return "running" in _state(pod) and statuses[0]["restartCount"] >= 1


def _state(pod: Object) -> Object:
    statuses = pod["status"].get("containerStatuses") or [{}]
    state: Object = statuses[0].get("state", {})
    return state
