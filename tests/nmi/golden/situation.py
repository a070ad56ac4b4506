"""A situation in which a pod asks, and the bytes that it gets.

The answers are in the files beside this one, written down as they must be: a heading, and below it
status line, headers and body. A client reads these bytes, so a change of one is a change for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podidentity.core.attestation import Verdict
from podidentity.core.decision import Use
from podidentity.core.errors import TokenUnavailable
from podidentity.core.resources import Malformed, ObjectRef
from podidentity.nmi.request.decision import DecisionPolicy
from tests.fakes import VAULT, binding, identity, pod
from tests.nmi.agents import Agent, agent
from tests.nmi.talking import Talk, talking

TOKEN = f"/metadata/identity/oauth2/token?api-version=2018-02-01&resource={VAULT}"
HEADER = "Metadata: true"
ORDERS = pod(addresses=("127.0.0.1",))
WORLD = (ORDERS, identity(), binding())


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What there is, what is asked, and what goes wrong."""

    objects: Sequence[Any] = WORLD
    target: str = TOKEN
    headers: Sequence[str] = (HEADER,)
    method: str = "GET"
    why: str = ""
    """The reason that the log has: of a refusal, or the class of an error."""
    policy: DecisionPolicy | None = None
    routes: Mapping[str, Any] = field(default_factory=dict)
    denied: Sequence[str] = ()
    """Names that RBAC does not let the pod use."""
    fails: TokenUnavailable | None = None
    """What the source of tokens says."""
    verdict: Verdict = Verdict.PROVEN
    owner: str | None = None
    """Uid of the pod whose socket it is; None: the one that has the address."""
    proxy: str = ""
    """Uid of the pod whose socket it is, in the namespace of `owner`."""
    unseen: bool = False
    """Whether nobody has a socket of it."""
    holders: int = 1
    """How many namespaces hold its address."""
    waits: float = 0
    """Seconds that it is held before it is answered."""

    @property
    def request(self) -> bytes:
        """What is sent."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: 169.254.169.254", *self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def answered(self) -> tuple[bytes, str]:
        """Return the answer, byte for byte, and the reason that the log has."""
        async with agent(*self.objects, deciding=self.policy, **self.routes) as nmi:
            self._arrange(nmi)
            async with talking(nmi.listener) as talk:
                await talk.say(self.request)
                hearing = asyncio.create_task(heard(talk))
                if self.waits:
                    await nmi.clock.somebody_sleeps()
                    assert nmi.clock.slept == [self.waits]
                    nmi.clock.advance(self.waits)
                found = await hearing
            (line,) = nmi.record.lines
            return found, str(line.get("reason", ""))

    def _arrange(self, nmi: Agent) -> None:
        for each in self.objects:
            if isinstance(each, Malformed):
                nmi.cluster.put(each)
        for name in self.denied:
            nmi.permissions.allowed[Use(ObjectRef("shop", "default"), name)] = False
        nmi.tokens.failures = [self.fails] if self.fails else []
        nmi.attestor.verdict, nmi.attestor.uid = self.verdict, self.owner
        nmi.attestor.proxy, nmi.attestor.unseen = self.proxy, self.unseen
        nmi.attestor.holders = self.holders


async def heard(talk: Talk) -> bytes:
    """Return one answer as it came."""
    head = await talk.reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head + await talk.reader.readexactly(int(length))


def asking(**parameters: str) -> str:
    """Return the target of a request for a token, with more parameters."""
    return TOKEN + "".join(f"&{name}={value}" for name, value in parameters.items())


def written(name: str) -> dict[str, bytes]:
    """Return the answers of a file by their headings."""
    text = Path(__file__).with_name(f"{name}.txt").read_text()
    answers: dict[str, bytes] = {}
    for block in text.split("\n### ")[1:]:
        title, _, answer = block.partition("\n")
        head, _, body = answer.rstrip("\n").partition("\n\n")
        assert title not in answers, title
        answers[title] = "\r\n".join([*head.split("\n"), "", body]).encode()
    return answers
