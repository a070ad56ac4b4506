"""What a check is: a sentence about a cluster that should hold, and how it is looked at.

Where the person may not read what it needs, a check says so and counts as failed: what is not known
is not well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass

from podidentity.cli.checks.findings import Finding, not_read
from podidentity.cli.checks.reading import NotMade, Reading
from podidentity.wire.kube import KubeError

Line = str
"""What a check tells besides findings: a fact that is no fault."""
Found = Iterable["Finding | Line"]
Look = Callable[[Reading], "AsyncIterator[Finding | Line] | Coroutine[object, object, Found]"]
"""What looks: it returns all that it found, or yields what holds even if a later step fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One sentence about a cluster."""

    holds: str
    """The sentence that is true where nothing is found."""
    look: Look
    right: str
    """What could not be checked without which right, as a clause; {nmi} is NMI's namespace."""
    reads_secrets: bool = False
    """Whether it looks into Secrets, if only to see that they can be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Checks of one part of a cluster."""

    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one check has found, and told."""

    findings: tuple[Finding, ...] = ()
    lines: tuple[Line, ...] = ()
    not_made: str = ""
    """Why there was nothing to check, as a clause: then nothing says that the check holds."""


async def perform(check: Check, reading: Reading) -> Outcome:
    """Return what a check finds; raise KubeError, but not for a right that is missing."""
    findings: list[Finding] = []
    lines: list[Line] = []
    not_made = ""
    try:
        looked = check.look(reading)
        async for each in looked if isinstance(looked, AsyncIterator) else _each(looked):
            if isinstance(each, Finding):
                findings.append(each)
            else:
                lines.append(each)
    except NotMade as error:
        not_made = str(error)
    except KubeError as error:
        if not error.forbidden:
            raise
        choices = reading.choices
        right = check.right.format(nmi=choices.namespace, account=choices.account)
        findings.append(not_read(f"could not check {right}"))
    return Outcome(findings=tuple(findings), lines=tuple(lines), not_made=not_made)


async def _each(looked: Coroutine[object, object, Found]) -> AsyncIterator[Finding | Line]:
    for each in await looked:
        yield each
