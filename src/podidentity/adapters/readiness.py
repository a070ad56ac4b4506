"""What an NMI says of its node at `/readyz`, asked at the node's address.

Another one asks as a pod does: for a token, at 169.254.169.254. The token itself goes no further
than to the check that there is one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import httpx2
import msgspec

from podidentity.bounded_answers import no_answer
from podidentity.wire import BROKEN_JSON

METADATA = "http://169.254.169.254/metadata/identity/oauth2/token"
SECONDS = 5.0
"""Longest wait for an answer about a node."""
TOKEN_SECONDS = 100.0
"""Longest wait for a token: NMI holds a request while an identity is attached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensLately:
    """How many pods of the node asked for tokens in the last minute, and how many get none."""

    asked: int
    failing: int
    """0, too, if they are a small share."""
    reason: str
    """The name of the commonest error."""
    since_seconds_ago: float
    """Since the first of these failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReadiness:
    """What an NMI says of itself and its node."""

    ready: bool
    plane: str = ""
    backend: str = ""
    proof: str = ""
    hop: str = ""
    """Where the last request from its probe pod ended; "" if it did not answer."""
    problems: tuple[str, ...] = ()
    tokens: TokensLately | None = None
    """None of an NMI before 0.2."""

    @classmethod
    def of(cls, body: bytes) -> Self:
        """Parse the body of `/readyz`; raise ValueError if it is none."""
        try:
            said: dict[str, Any] = json.loads(body)
            path: dict[str, str] = said["path"]
            checks: dict[str, Any] = said["checks"]
            return cls(
                ready=said["ready"] is True,
                plane=path["plane"],
                backend=path["backend"],
                proof=said["attestation"],
                hop=path["hop"],
                problems=tuple(
                    f"{name}: {problem}"
                    for name, found in checks.items()
                    if found != "ok"
                    for problem in found
                ),
                tokens=msgspec.convert(said.get("tokens"), TokensLately | None),
            )
        except (ValueError, KeyError, TypeError, AttributeError, *BROKEN_JSON) as error:
            raise ValueError("it answers, but not as NMI does") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAnswer:
    """What became of a request for a token."""

    status: int
    client: str = ""
    """Client id of the identity whose token it was."""
    expires_in: int = 0
    """Seconds."""
    text: str = ""
    """Why there was none."""


class AgentPages:
    """Asks agents, and the metadata service, without any proxy."""

    def __init__(self, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        """Ask by the network, unless there is a `transport`."""
        self._client = httpx2.AsyncClient(trust_env=False, transport=transport)

    async def close(self) -> None:
        await self._client.aclose()

    async def readiness(self, address: str, port: int) -> AgentReadiness:
        """Return what NMI at this address says; a failure is a problem among others."""
        host = f"[{address}]" if ":" in address else address
        try:
            response = await self._client.get(f"http://{host}:{port}/readyz", timeout=SECONDS)
            return AgentReadiness.of(response.content)
        except httpx2.HTTPError as error:
            why = f"{address}:{port} cannot be asked: {no_answer(error)}"
            return AgentReadiness(ready=False, problems=(why,))
        except ValueError as error:
            return AgentReadiness(ready=False, problems=(f"{address}:{port}: {error}",))

    async def token(self, resource: str) -> TokenAnswer:
        """Ask for a token for `resource`, as any pod would."""
        try:
            response = await self._client.get(
                METADATA,
                params={"api-version": "2018-02-01", "resource": resource},
                headers={"Metadata": "true"},
                timeout=TOKEN_SECONDS,
            )
        except httpx2.HTTPError as error:
            return TokenAnswer(status=0, text=str(error) or type(error).__name__)
        try:
            said: dict[str, Any] = json.loads(response.content)
            if response.status_code == httpx2.codes.OK and said["access_token"]:
                return TokenAnswer(
                    status=200, client=str(said["client_id"]), expires_in=int(said["expires_in"])
                )
            text = str(said["error_description"])
        except (ValueError, KeyError, TypeError):
            text = "the answer is none of the metadata service"
        return TokenAnswer(status=response.status_code, text=text)
