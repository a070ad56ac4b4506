"""The real metadata service in memory, for paths that are passed on."""

from __future__ import annotations

from dataclasses import dataclass, field

from podidentity.core.errors import TokenSourceDown
from podidentity.core.rate_limits import Flow
from podidentity.wire.imds import MetadataAnswer

ANSWER = MetadataAnswer(
    status=200,
    content_type="application/json",
    body=b'{"compute":{"vmId":"v","userData":"c2VjcmV0"}}',
)


@dataclass
class FakeMetadata:
    """The real service, for what is passed on."""

    passed: MetadataAnswer = ANSWER
    down: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def metadata(self, target: str, accept: str, flow: Flow) -> MetadataAnswer:
        del flow
        self.asked.append((target, accept))
        if self.down:
            raise TokenSourceDown("IMDS did not answer within 10 s")
        return self.passed
