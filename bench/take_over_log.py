"""A take-over as its page has it, under 200 requests a second: a log with its counts.

The commands of docs/how-to/take-over.md, each with what it said and what pods got since. A run
is shown by docs/explanation/take-over-log.md.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.weather import CALM
from tests.acceptance.archived_nmi import SERVER
from tests.acceptance.asking import OURS, Load, so_far
from tests.acceptance.sandbox import leaked, opened
from tests.acceptance.test_take_over import BACK, FORWARD, archived, begin
from tests.acceptance.two_pools import PODS, Cluster
from tests.docs.blocks import Block

RATE = 200
LOOK_SECONDS = 2.0
"""How long the operator looks on before the next command."""
SHOWN = 4
"""Last lines of a command's output that the log has, without what is unchanged."""
_GUID = re.compile(r"\b([0-9a-f]{4})[0-9a-f]{4}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
HELM = "helm upgrade --install aad-pod-identity …"
"""What brings the archived NMI back; here its stand-in comes by its manifest."""


def commands_of(block: Block) -> list[str]:
    """Return the commands of a block, each as it is typed."""
    return block.text.replace(" \\\n", " ").splitlines()


class Log:
    """Runs commands, and prints each with its output and what pods got until after it."""

    def __init__(self, found: Cluster, nonce: str) -> None:
        self._found, self._nonce = found, nonce
        self._began = time.monotonic()
        self._before: Counter[str] = Counter()

    async def run(self, command: str) -> None:
        """Run a command of the how-to."""

        async def typed() -> str:
            return await self._found.run("bash", "-c", f"{' '.join(command.split())} 2>&1; :")

        await self.step(command, typed)

    async def step(self, command: str, do: Callable[[], Awaitable[str]]) -> None:
        """Print the command, what it said, and what pods got meanwhile and for a moment after."""
        print(f"{time.monotonic() - self._began:5.1f} s  $ {' '.join(command.split())}")
        said = _GUID.sub(r"\g<1>…", await do())
        told = [each.strip() for each in said.splitlines() if each and "unchanged" not in each]
        for line in told[-SHOWN:]:
            print(f"           {line}")
        await asyncio.sleep(LOOK_SECONDS)
        self._count(await so_far(self._found.place, self._nonce, PODS))

    def _count(self, asked: Load) -> None:
        now = Counter(asked.answers)
        since = now - self._before
        self._before = now
        print(
            f"         ⇒ tokens since: {since[SERVER]} of the archived NMI, {since[OURS]} of ours; "
            f"in all {now.total()}, without an answer {len(asked.lost)}, others {len(asked.wrong)}",
            flush=True,
        )


async def follow(found: Cluster, nonce: str, steps: Callable[[Log], Awaitable[None]]) -> None:
    """Have pods ask while these steps are done; print what they got in all."""
    async with found.load(nonce) as asked:
        await steps(Log(found, nonce))
    of_connections = sum(by == SERVER for by, _ in asked.lost)
    kept = f"{of_connections} of them on connections kept to the archived NMI"
    print(
        f"In all   {asked.answers.total()} tokens of the identity that the pods are bound to\n"
        f"         {asked.answers[SERVER]} of the archived NMI, {asked.answers[OURS]} of ours\n"
        f"         {len(asked.lost)} requests without an answer, {kept}\n"
        f"         {len(asked.wrong)} other answers or tokens of another identity\n"
        f"         {await leaked(found.azure, nonce)} leaked to IMDS\n"
        f"         slowest answer {asked.slowest:.1f} s\n"
    )


async def forward(log: Log) -> None:
    """Take the archived NMI's place, and see it end."""
    for block in FORWARD:
        for command in commands_of(block):
            await log.run(command)


def back(found: Cluster) -> Callable[[Log], Awaitable[None]]:
    """Return the steps that have the archived NMI come back."""

    async def brought() -> str:
        await archived(found)
        return ""

    async def steps(log: Log) -> None:
        apart, leave = BACK
        for command in commands_of(apart):
            await log.run(command)
        await log.step(HELM, brought)
        for command in commands_of(leave):
            await log.run(command)

    return steps


def main() -> None:
    """Take a cluster over, and give it back."""
    with opened("bench-log", nodes=2, weather=CALM) as (place, azure, loop):
        found = Cluster(place, azure, loop.run(prepare(place.plan)))
        found.rate = RATE / len(PODS)
        loop.run(begin(found))
        loop.run(follow(found, "coming", forward))
        loop.run(follow(found, "going", back(found)))


if __name__ == "__main__":
    main()
