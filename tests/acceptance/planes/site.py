"""A sandbox whose packets take other ways: what its pods get, and what reaches the real IMDS."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from tests.acceptance.sandbox import ANSWERED, ASK, PATIENCE, Sandbox, leaked

TIMES = 5
SERVED, REFUSED = ["200"] * TIMES, ["000"] * TIMES
IMDS = "169.254.169.254"
VAULT = "https://vault.azure.net"


def once(nonce: str, seconds: int = ANSWERED, *, to: str = IMDS, resource: str = VAULT) -> str:
    """Return the command that asks once, and prints the status."""
    asking = ASK.format(seconds=seconds, nonce=nonce, resource=resource).replace(IMDS, to)
    return f"{asking} -o /dev/null"


@dataclass
class Site:
    """A sandbox with a pod `app`, its Azure, and the loop by which both are asked."""

    place: Sandbox
    azure: AzureOperator
    loop: asyncio.Runner

    def leaked(self, nonce: str) -> int:
        """Return how many requests with this nonce the real IMDS has seen."""
        return self.loop.run(leaked(self.azure, nonce))

    def shell(self, script: str, pod: str = "app", namespace: str = "default") -> str:
        """Run a shell script in a pod; return what it printed."""
        run = self.place.shell(script, pod=pod, namespace=namespace)
        return self.loop.run(run).stdout.decode()

    def ask(
        self,
        pod: str = "app",
        *,
        seconds: int = ANSWERED,
        to: str = IMDS,
        more: str = "",
        command: str = "",
    ) -> tuple[list[str], int]:
        """Ask some times in a pod; return the statuses, and how many requests reached IMDS.

        `more` are arguments of curl. `command`, with NONCE in it, is what asks in place of curl.
        """
        nonce = secrets.token_hex(8)
        asking = command.replace("NONCE", nonce) or f"{once(nonce, seconds, to=to)} {more}"
        said = self.shell(f"for i in $(seq {TIMES}); do {asking}; done", pod)
        return said.split(), self.leaked(nonce)

    def until_findings(self, holds: Callable[[dict[str, dict[str, str]]], bool]) -> Any:
        """Run `podidentity check` until that holds of what it finds, and return it.

        Not more often: half a second of a processor each time.
        """
        return until(self.findings, holds, every=3)

    def findings(self) -> dict[str, dict[str, str]]:
        """Return what `podidentity check` finds, by its reasons."""
        return {each["reason"]: each for each in self.place.check()}


def until(look: Callable[[], Any], holds: Callable[[Any], bool], *, every: float = 0.3) -> Any:
    """Look each so many seconds until that holds, and return what was found."""
    ends = time.monotonic() + PATIENCE
    while not holds(found := look()):
        assert time.monotonic() < ends, found
        time.sleep(every)
    return found
