"""What the API server is told of a pod: its status after each change, and at last its end.

The server being away delays a report and loses none: the latest status is sent when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from podidentity_sandbox.node.api import MERGE_PATCH, Api, ApiError
from podidentity_sandbox.node.spec import PodSpec

_log = logging.getLogger(__name__)

_OBJECT_GONE = {404, 409}
"""Not there, or another pod of the same name."""


class PodReports:
    """Writes one pod's status, and deletes its object."""

    def __init__(
        self,
        spec: PodSpec,
        api: Api,
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
        """Set by whoever changes what the status is made of."""

    async def run(self) -> None:
        """Report after each change, until the object is gone."""
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
        except ApiError as error:
            if error.status in _OBJECT_GONE:
                return False
            _log.error("%s: %s was refused: %s", self._spec.label, method, error)
        return True
