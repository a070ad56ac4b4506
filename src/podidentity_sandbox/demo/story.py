"""A step of the story, and how steps are run and shown.

A step is a command as a person would type it and a check of its output. The check returns a line
that says what was seen, or raises Unexpected with the reason, or the error with which it read the
output in vain: that is the check mark or the cross. One cross does not end the story, since the
next steps may still say why.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import click

from podidentity_sandbox.demo.shell import Ran, Shell, ShellEnded
from podidentity_sandbox.plan import Plan

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_PATIENCE = 180.0
"""Seconds for one step; the longest waits for NMI on each node."""


class Unexpected(Exception):
    """The output is not as the story says; the message is the reason."""


@dataclass(slots=True)
class StoryContext:
    """The sandbox of the story, and the shells that are open."""

    plan: Plan
    environment: Mapping[str, str]
    operator: Shell
    pod: Shell | None = None
    notes: dict[str, str] = field(default_factory=dict)
    """Values that a step found and a later one needs."""


Check = Callable[[StoryContext, Ran], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command and the check of its output."""

    number: str
    """The step of the published walk-through that it tells; a word for others."""
    name: str
    command: str
    check: Check
    in_pod: bool = False
    """Whether it is typed into the shell inside the pod."""
    opens_pod: bool = False
    """Whether it opens that shell: at a terminal, if it says `-it`."""
    exit: int = 0
    """The status with which the command must end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The result of a step: one object of the demo's `--json`."""

    number: str
    name: str
    in_pod: bool
    command: str
    output: str
    ok: bool
    detail: str
    seconds: float


async def run_step(context: StoryContext, step: Step) -> StepResult:
    began = time.monotonic()
    ran, ok = Ran("", -1), False
    try:
        ran = await _run(context, step)
        last = (ran.output.strip().splitlines() or ["nothing printed"])[-1]
        must(ran.exit == step.exit, f"exit status {ran.exit}, not {step.exit}: {last[:300]}")
        detail, ok = await step.check(context, ran), True
    except TimeoutError:
        detail = f"no answer within {_PATIENCE:g} s"
    except (Unexpected, ShellEnded) as reason:
        detail = str(reason)
    except (ValueError, LookupError, TypeError) as cause:
        detail = f"not an answer as it must be ({cause!r}): {ran.output[:200]}"
    return StepResult(
        number=step.number,
        name=step.name,
        in_pod=step.in_pod,
        command=step.command,
        output=_TOKEN.sub("eyJ… (a token, not shown)", ran.output),
        ok=ok,
        detail=" ".join(detail.split()),
        seconds=round(time.monotonic() - began, 3),
    )


async def _run(context: StoryContext, step: Step) -> Ran:
    if step.opens_pod:
        open_shell = Shell.open_at_terminal if " -it " in step.command else Shell.open
        context.pod = await open_shell(["bash", "-c", f"exec {step.command}"], context.environment)
        return await context.pod.run(":", _PATIENCE)
    shell = inside(context) if step.in_pod else context.operator
    return await shell.run(step.command, _PATIENCE)


def inside(context: StoryContext) -> Shell:
    """Return the shell in the pod; raise Unexpected where an earlier step did not open it."""
    if context.pod is None:
        raise Unexpected("there is no shell in the pod: an earlier step failed")
    return context.pod


def must(holds: object, reason: str) -> None:
    if not holds:
        raise Unexpected(reason)


# ---- Printing

_OUTPUT_LINES = 8


class Printer:
    """Tells the story to a person, to whom its steps are 1, 2, 3."""

    def __init__(self) -> None:
        self._told = 0

    def chapter(self, title: str) -> None:
        click.secho(f"\n{title}", bold=True)

    def begin(self, step: Step) -> None:
        """Show the command, before it is run."""
        self._told += 1
        click.secho(f"\n  {self._told:>6}  {step.name}", fg="cyan")
        prompt = "pod#" if step.in_pod else "$"
        for line in step.command.splitlines():
            click.echo(f"          {click.style(prompt, dim=True)} {line}")
            prompt = " " * len(prompt)

    def end(self, result: StepResult) -> None:
        """Show what came back and the mark."""
        lines = [line for line in result.output.splitlines() if line.strip()]
        for line in lines[:_OUTPUT_LINES]:
            # A token is cut, as a person would want it.
            click.echo(f"          {line if len(line) <= 140 else f'{line[:140]}…'}")
        if len(lines) > _OUTPUT_LINES:
            click.secho(f"          … {len(lines) - _OUTPUT_LINES} more lines", dim=True)
        mark = click.style("✓", fg="green") if result.ok else click.style("✗", fg="red", bold=True)
        click.echo(
            f"        {mark} {result.detail}  {click.style(f'{result.seconds:.2f} s', dim=True)}"
        )


def summary(results: Iterable[StepResult], seconds: float, plan: Plan, *, keep: bool) -> None:
    steps = list(results)
    failed = [(number, step) for number, step in enumerate(steps, 1) if not step.ok]
    click.echo()
    if failed:
        click.secho(f"{len(failed)} of {len(steps)} steps went wrong:", fg="red", bold=True)
        for number, step in failed:
            click.echo(f"  {number} {step.name}: {step.detail}")
        click.echo(f"Logs of the parts: {plan.logs}" if keep else "Look closer with --keep.")
    else:
        click.secho(f"All {len(steps)} steps as expected, in {seconds:.1f} s.", fg="green")
    if keep:
        click.echo(
            "The sandbox is up. Look around:\n"
            f"  podidentity sandbox shell --name {plan.name}\n"
            "  podidentity sandbox status\n"
            "  podidentity explain default/elsewhere\n"
            "  podidentity sandbox exec -n identity-demo -it identity-demo -- sh\n"
            "  exit\n"
            f"  podidentity sandbox down --name {plan.name}"
        )
