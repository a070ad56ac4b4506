"""Events on pods, as a kubelet reports them: what a person sees in `describe`.

Best effort, as theirs: an event that cannot be delivered is logged and let go.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

from podidentity_sandbox.node.api import Api, ApiError, Unreachable
from podidentity_sandbox.node.clock import Clock
from podidentity_sandbox.node.spec import PodSpec
from podidentity_sandbox.node.status import stamp

_log = logging.getLogger(__name__)
_MOST_WAITING = 1000


class Events:
    """Sends events in the background, in order."""

    def __init__(self, api: Api, node: str, clock: Clock) -> None:
        self._api = api
        self._node = node
        self._clock = clock
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MOST_WAITING)

    def warn(self, pod: PodSpec, reason: str, message: str, *, container: str = "") -> None:
        """Report what went wrong."""
        self._report("Warning", pod, reason, message, container)

    def tell(self, pod: PodSpec, reason: str, message: str, *, container: str = "") -> None:
        """Report what was done."""
        self._report("Normal", pod, reason, message, container)

    def _report(self, kind: str, pod: PodSpec, reason: str, message: str, container: str) -> None:
        _log.info("%s: %s: %s", pod.label, reason, message)
        now = stamp(self._clock.now())
        about: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        }
        if container:
            about["fieldPath"] = f"spec.containers{{{container}}}"
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{pod.name[:200]}.{uuid.uuid4().hex[:16]}",
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
            "count": 1,
        }
        if not self._waiting.full():
            self._waiting.put_nowait(event)

    async def run(self) -> None:
        """Send what is reported, for ever."""
        while True:
            event = await self._waiting.get()
            namespace = event["metadata"]["namespace"]
            try:
                await self._api.request("POST", f"/api/v1/namespaces/{namespace}/events", event)
            except (ApiError, Unreachable) as error:
                _log.info("an event was lost: %s", error)
