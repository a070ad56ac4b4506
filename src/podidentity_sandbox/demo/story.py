"""What a step of the story is, and how steps are run and told.

A step is a command as a person would type it and a judgement of what came back. The judgement
returns a line of what was seen, or raises Unexpected with the reason: that is the check mark or the
cross. One cross does not end the story, since the next steps may still say why.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from podidentity_sandbox.demo.shell import Ran, Shell, ShellEnded
from podidentity_sandbox.plan import Plan

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")


class Unexpected(Exception):
    """What came back is not what the story says; the message is the reason."""


@dataclass(slots=True)
class Stage:
    """Where the story plays: the sandbox, and the shells that are open."""

    plan: Plan
    environment: Mapping[str, str]
    operator: Shell
    pod: Shell | None = None
    notes: dict[str, str] = field(default_factory=dict)
    """What a step learnt and a later one needs."""


Judgement = Callable[[Stage, Ran], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command and what is expected of it."""

    number: str
    """The step of the walk-through."""
    name: str
    command: str
    judge: Judgement
    in_pod: bool = False
    """Whether it is typed into the shell inside the pod."""
    opens_pod: bool = False
    """Whether it opens that shell."""
    at_terminal: bool = False
    """Whether it does so at a terminal, as `-it` wants."""
    seconds: float = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a step went: one object a step of the demo's `--json`."""

    number: str
    name: str
    in_pod: bool
    command: str
    output: str
    ok: bool
    detail: str
    seconds: float


async def tell(stage: Stage, step: Step) -> Told:
    """Run `step` and judge it."""
    began = time.monotonic()
    ran, ok = Ran("", -1), False
    try:
        ran = await _run(stage, step)
        detail, ok = await step.judge(stage, ran), True
    except TimeoutError:
        detail = f"no answer within {step.seconds:g} s"
    except (Unexpected, ShellEnded) as reason:
        detail = str(reason)
    return Told(
        number=step.number,
        name=step.name,
        in_pod=step.in_pod,
        command=step.command,
        output=_TOKEN.sub("eyJ… (a token, not shown)", ran.output),
        ok=ok,
        detail=" ".join(detail.split()),
        seconds=round(time.monotonic() - began, 3),
    )


async def _run(stage: Stage, step: Step) -> Ran:
    if step.opens_pod:
        open_shell = Shell.open_at_terminal if step.at_terminal else Shell.open
        stage.pod = await open_shell(["bash", "-c", f"exec {step.command}"], stage.environment)
        return await stage.pod.run(":", step.seconds)
    if step.in_pod:
        return await inside(stage).run(step.command, step.seconds)
    return await stage.operator.run(step.command, step.seconds)


def inside(stage: Stage) -> Shell:
    """Return the shell in the pod; raise Unexpected where an earlier step did not open it."""
    if stage.pod is None:
        raise Unexpected("there is no shell in the pod: an earlier step failed")
    return stage.pod


@contextmanager
def expecting(what: str) -> Iterator[None]:
    """Turn any failure to read an answer into the reason that a person understands."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError) as cause:
        raise Unexpected(f"{what}: {cause}") from cause


def must(holds: object, reason: str) -> None:
    """Raise Unexpected with `reason` unless `holds`."""
    if not holds:
        raise Unexpected(reason)


def exited(ran: Ran, status: int = 0) -> None:
    """Raise Unexpected unless the command ended with `status`."""
    last = ran.output.strip().splitlines()[-1:] or ["nothing printed"]
    must(ran.exit == status, f"exit status {ran.exit}, not {status}: {last[0][:300]}")
