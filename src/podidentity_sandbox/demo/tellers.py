"""How the story is shown: to a person as it goes, or to a program at its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import click

from podidentity_sandbox.demo.story import Step, Told
from podidentity_sandbox.plan import Plan

_OUTPUT_LINES = 8


class Teller(Protocol):
    """Shows the story while it is told."""

    def chapter(self, title: str) -> None:
        """Begin a chapter."""

    def begin(self, step: Step) -> None:
        """Show the command, before it is run."""

    def end(self, told: Told) -> None:
        """Show what came back and the mark."""


class OnScreen:
    """Tells the story to a person."""

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        click.secho(f"\n{title}", bold=True)

    def begin(self, step: Step) -> None:
        """Show the command, before it is run."""
        click.secho(f"\n  {step.number:>6}  {step.name}", fg="cyan")
        prompt = "pod#" if step.in_pod else "$"
        for line in step.command.splitlines():
            click.echo(f"          {click.style(prompt, dim=True)} {line}")
            prompt = " " * len(prompt)

    def end(self, told: Told) -> None:
        """Show what came back and the mark."""
        lines = [line for line in told.output.splitlines() if line.strip()]
        for line in lines[:_OUTPUT_LINES]:
            click.echo(f"          {_shortened(line)}")
        if len(lines) > _OUTPUT_LINES:
            click.secho(f"          … {len(lines) - _OUTPUT_LINES} more lines", dim=True)
        mark = click.style("✓", fg="green") if told.ok else click.style("✗", fg="red", bold=True)
        click.echo(
            f"        {mark} {told.detail}  {click.style(f'{told.seconds:.2f} s', dim=True)}"
        )


class Silent:
    """Tells nothing while the story runs: `--json` prints it at the end."""

    def chapter(self, title: str) -> None:
        """Say nothing."""

    def begin(self, step: Step) -> None:
        """Say nothing."""

    def end(self, told: Told) -> None:
        """Say nothing."""


def _shortened(line: str, width: int = 140) -> str:
    """Return `line` fit for a terminal; a token in it is cut, as a person would want it."""
    return line if len(line) <= width else f"{line[:width]}…"


def summary(told: Iterable[Told], seconds: float, plan: Plan, *, keep: bool) -> None:
    """Print what came out of it all, and what a person can do next."""
    steps = list(told)
    failed = [step for step in steps if not step.ok]
    click.echo()
    if failed:
        click.secho(f"{len(failed)} of {len(steps)} steps went wrong:", fg="red", bold=True)
        for step in failed:
            click.echo(f"  {step.number} {step.name}: {step.detail}")
        click.echo(f"Logs of the parts: {plan.logs}" if keep else "Look closer with --keep.")
    else:
        click.secho(f"All {len(steps)} steps as expected, in {seconds:.1f} s.", fg="green")
    if keep:
        click.echo(
            "The sandbox is up. Look around:\n"
            f"  podidentity sandbox shell --name {plan.name}\n"
            "  podidentity sandbox status\n"
            "  podidentity explain pod default/elsewhere\n"
            "  podidentity sandbox exec -n identity-demo -it identity-demo -- sh\n"
            "  exit\n"
            f"  podidentity sandbox down --name {plan.name}"
        )
