"""Events on pods, as a kubelet reports them: what a person sees in `describe`.

Best effort, as theirs: an event that cannot be delivered is logged and let go.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from podidentity_sandbox.node.api import MERGE_PATCH, Api, ApiError, Unreachable
from podidentity_sandbox.node.clock import Clock
from podidentity_sandbox.node.spec import PodSpec
from podidentity_sandbox.node.status import stamp

_log = logging.getLogger(__name__)
_MOST_WAITING = 1000
_MOST_KNOWN = 4096
"""Events that are counted on; those that were not seen for longest are forgotten."""


class Events:
    """Sends events in the background, in order."""

    def __init__(self, api: Api, node: str, clock: Clock) -> None:
        self._api = api
        self._node = node
        self._clock = clock
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MOST_WAITING)
        self._serial = 0
        self._written: dict[tuple[str | None, ...], tuple[str, int]] = {}

    def warn(self, pod: PodSpec, reason: str, message: str, *, container: str = "") -> None:
        """Report what went wrong."""
        self._report("Warning", pod, reason, message, container)

    def tell(self, pod: PodSpec, reason: str, message: str, *, container: str = "") -> None:
        """Report what was done."""
        self._report("Normal", pod, reason, message, container)

    def _report(self, kind: str, pod: PodSpec, reason: str, message: str, container: str) -> None:
        _log.info("%s: %s: %s", pod.label, reason, message)
        moment = self._clock.now()
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
        """Send what is reported, for ever."""
        while True:
            event = await self._waiting.get()
            try:
                await self._send(event)
            except (ApiError, Unreachable) as error:
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
            except ApiError:  # it is gone: then this is the first again
                count = 0
        if not count:
            await self._api.request("POST", path, event)
            name = event["metadata"]["name"]
        self._written[same] = name, count + 1
        if len(self._written) > _MOST_KNOWN:
            del self._written[next(iter(self._written))]
