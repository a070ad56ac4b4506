"""One request on a resource, authorised, and the answers to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from podidentity_sandbox.cluster import presentation, selectors
from podidentity_sandbox.cluster.cluster import clock
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.presentation import Presentation
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.users import User

Answer = web.StreamResponse
WARNINGS_LIMIT, WARNING_LIMIT = 4096, 256
"""Characters of all warnings together; and of each, once they are more than that.

https://github.com/kubernetes/apiserver/blob/v0.32.3/pkg/endpoints/filters/warning.go
"""


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


def json_answer(raw: bytes, code: int = 200, warnings: Sequence[str] = ()) -> web.Response:
    """Return JSON, with what the client is to be warned of in Warning headers.

    A warning is said once, and one with control characters, such as the end of a line, not at all:
    https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/net/http.go (NewWarningHeader)
    """
    answer = web.Response(body=raw, status=code, content_type="application/json")
    for text in _sayable(warnings):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        answer.headers.add("Warning", f'299 - "{quoted}"')
    return answer


def _sayable(warnings: Sequence[str]) -> Iterator[str]:
    """Yield what fits into headers: shortened, and not all, where there is a lot to say."""
    texts = [text for text in dict.fromkeys(warnings) if text.isprintable()]
    short = sum(map(len, texts)) > WARNINGS_LIMIT
    left = WARNINGS_LIMIT
    for text in texts:
        said = text[:WARNING_LIMIT] if short else text
        left -= len(said)
        if left < 0:
            return
        yield said
