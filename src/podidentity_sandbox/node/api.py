"""The kubelet's client of the API server, which has patience."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

from podidentity_sandbox.apiserver import ApiRefusal, ApiServer, ApiUnreachable, Object
from podidentity_sandbox.plan import NodePlan, Plan

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_LONGEST_PAUSE = 5.0
_NOT_FOUND = 404


class ApiClient(ApiServer):
    """The API server, as this node's kubelet."""

    def __init__(self, plan: Plan, node: NodePlan) -> None:
        trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
        super().__init__(plan.apiserver_url, trust, lambda: node.token, agent="kubelet/sandbox")

    async def find(self, path: str) -> Object | None:
        """Return the object at `path`, None where there is none; insist on an answer."""
        try:
            return await self.insist(lambda: self.request("GET", path))
        except ApiRefusal as error:
            if error.status != _NOT_FOUND:
                raise
            return None

    async def insist(self, what: Callable[[], Awaitable[_T]]) -> _T:
        """Do `what` until the server has answered; a refusal that will not pass is raised."""
        pause = 0.1
        while True:
            try:
                return await what()
            except ApiUnreachable as error:
                _log.warning("trying again: %s", error)
            except ApiRefusal as error:
                if not error.passes:
                    raise
                _log.warning("the API server is in trouble, trying again: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
