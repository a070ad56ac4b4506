"""One request on a resource, authorised, and the answers to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from podidentity_sandbox.cluster import presentation, selectors
from podidentity_sandbox.cluster.cluster import clock
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.presentation import Presentation
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.users import User

Answer = web.StreamResponse


@dataclass(frozen=True, slots=True)
class Call:
    """One authorised request on a resource type that is served."""

    request: web.Request
    info: RequestInfo
    kind: ResourceType
    user: User

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters."""
        return self.request.query

    @property
    def presentation(self) -> Presentation:
        """How the client wants to see objects."""
        return presentation.choose(self.request.headers.get("Accept", ""), self.query, clock)

    @property
    def namespace(self) -> str:
        """The namespace of the objects asked for; "" where there is none, or all are meant."""
        return self.info.namespace if self.kind.namespaced else ""

    @property
    def selection(self) -> selectors.Selection:
        """The objects asked for; raises 400 for selectors that cannot be read."""
        info = self.info
        return selectors.select(self.kind, self.namespace, info.label_selector, info.field_selector)


def json_answer(raw: bytes, code: int = 200, warnings: list[str] | None = None) -> web.Response:
    """Return JSON, with what the client is to be warned of in Warning headers."""
    answer = web.Response(body=raw, status=code, content_type="application/json")
    for text in warnings or ():
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        answer.headers.add("Warning", f'299 - "{quoted}"')
    return answer
