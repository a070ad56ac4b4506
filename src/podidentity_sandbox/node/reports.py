"""Reports of a pod to the API server: events, its status after each change, and its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.apiserver import MERGE_PATCH, ApiRefusal, ApiUnreachable
from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.spec import PodSpec
from podidentity_sandbox.node.status import stamp

# ---- Events on pods, as a kubelet reports them: what a person sees in `describe`
#
# Best effort, as a kubelet's: an event that cannot be delivered is logged and dropped.

_log = logging.getLogger(__name__)
_MOST_WAITING = 1000
_MOST_KNOWN = 4096
"""Events that are counted on; those that were not seen for longest are forgotten."""


class Events:
    """Sends events in the background, in order."""

    def __init__(self, api: ApiClient, node: str) -> None:
        self._api = api
        self._node = node
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MOST_WAITING)
        self._serial = 0
        self._written: dict[tuple[str | None, ...], tuple[str, int]] = {}

    def warn(self, pod: PodSpec, reason: str, message: str, *, container: str = "") -> None:
        self._report("Warning", pod, reason, message, container)

    def tell(self, pod: PodSpec, reason: str, message: str, *, container: str = "") -> None:
        self._report("Normal", pod, reason, message, container)

    def _report(self, kind: str, pod: PodSpec, reason: str, message: str, container: str) -> None:
        _log.info("%s: %s: %s", pod.label, reason, message)
        moment = datetime.now(UTC)
        now = stamp(moment)
        self._serial += 1
        about: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        }
        if container:
            first = any(container == one.name for one in pod.init_containers)
            about["fieldPath"] = (
                f"spec.{'initContainers' if first else 'containers'}{{{container}}}"
            )
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{pod.name[:200]}.{int(moment.timestamp() * 1e9) + self._serial:x}",
                "namespace": pod.namespace,
            },
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": self._node},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": None,
            "count": 1,
        }
        if not self._waiting.full():
            self._waiting.put_nowait(event)

    async def run(self) -> None:
        while True:
            event = await self._waiting.get()
            try:
                await self._send(event)
            except (ApiRefusal, ApiUnreachable) as error:
                _log.info("an event was lost: %s", error)

    async def _send(self, event: dict[str, Any]) -> None:
        """Write an event, or count one that was written before."""
        path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
        about = event["involvedObject"]
        same = about["uid"], about.get("fieldPath"), event["reason"], event["message"]
        name, count = self._written.pop(same, ("", 0))
        if count:
            change = {"count": count + 1, "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._api.request("PATCH", f"{path}/{name}", change, content_type=MERGE_PATCH)
            except ApiRefusal:  # it is gone: then this is the first again
                count = 0
        if not count:
            await self._api.request("POST", path, event)
            name = event["metadata"]["name"]
        self._written[same] = name, count + 1
        if len(self._written) > _MOST_KNOWN:
            del self._written[next(iter(self._written))]


# ---- Status
#
# While the API server is away a report is delayed, not lost: the latest status is sent when it is
# back.

_OBJECT_GONE = {404, 409}
"""Not there, or another pod of the same name."""


class PodReports:
    """Writes one pod's status, and deletes its object."""

    def __init__(
        self,
        spec: PodSpec,
        api: ApiClient,
        known: Mapping[str, Any],
        compute: Callable[[Mapping[str, Any]], dict[str, Any]],
    ) -> None:
        """Report on `spec`, whose status is `known`; `compute` makes the new one from the last."""
        self._spec = spec
        self._api = api
        self._last: Mapping[str, Any] = known
        self._compute = compute
        self._path = f"/api/v1/namespaces/{spec.namespace}/pods/{spec.name}"
        self.due = asyncio.Event()
        """Set after each change of the facts that the status is computed from."""

    async def run(self) -> None:
        while True:
            await self.due.wait()
            self.due.clear()
            if not await self.report():
                return

    async def report(self) -> bool:
        """Write the status if it is another than the last; say whether the object is there."""
        status = self._compute(self._last)
        if status == self._last:
            return True
        # The uid makes the server refuse it for a new pod of the same name.
        body = {"metadata": {"uid": self._spec.uid}, "status": status}
        done = await self._send("PATCH", f"{self._path}/status", body, MERGE_PATCH)
        self._last = status
        return done

    async def delete(self) -> None:
        """Delete the object: nothing of the pod is left on the node."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": self._spec.uid},
        }
        await self._send("DELETE", self._path, body, "application/json")

    async def _send(self, method: str, path: str, body: dict[str, Any], kind: str) -> bool:
        """Send until it is answered; say whether the object is there."""
        try:
            await self._api.insist(lambda: self._api.request(method, path, body, content_type=kind))
        except ApiRefusal as error:
            if error.status in _OBJECT_GONE:
                return False
            _log.error("%s: %s was refused: %s", self._spec.label, method, error)
        return True
