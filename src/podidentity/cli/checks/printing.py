"""What a person sees of a check: lines that appear as they are done, at most 80 columns wide.

On a terminal that is narrower they are as wide as that.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import click

from podidentity.cli.checks.check import Check, Outcome
from podidentity.cli.checks.findings import Finding, Severity
from podidentity.cli.output import printable, terminal_width

COLUMNS = 80
MOST_ALIKE = 20
"""Findings of one reason in one namespace that are shown: a tenant can make 40,000."""
_MARKS = {
    None: ("\u221a", "ok", "green"),
    Severity.WARNING: ("\u203c", "!!", "yellow"),
    Severity.UNKNOWN: ("?", "?", "yellow"),
    Severity.ERROR: ("\u00d7", "xx", "red"),
}
"""For the worst of a check's findings: mark, mark in ASCII, and colour."""


def head(title: str) -> str:
    return f"{click.style(title, bold=True)}\n{'-' * len(title)}"


def lines(check: Check, outcome: Outcome, encoding: str) -> Iterator[str]:
    """Yield the lines of one check; `encoding` is that of where they go.

    A check that was not made has no mark: `not_made` counts it.
    """
    if not outcome.not_made or outcome.findings:
        mark, plain, colour = _MARKS[worst(outcome.findings)]
        try:
            mark.encode(encoding)
        except (UnicodeEncodeError, LookupError):
            mark = plain
        yield f"{click.style(mark, fg=colour)} {_wrapped(check.holds, '', more='  ')}"
    few, more = first_alike(outcome.findings)
    for each in few:
        yield textwrap.indent(shown(each), "    ")
    for told in more:
        yield _wrapped(told, "    ")
    for line in outcome.lines:
        yield _wrapped(line, "    ", more="      ")


def first_alike(found: Iterable[Finding]) -> tuple[dict[Finding, None], list[str]]:
    """Return the first of each reason in each namespace, and a line for the rest of them."""
    few, numbers = dict[Finding, None](), Counter[tuple[str, str]]()
    for each in found:
        numbers[each.reason, each.about.namespace] += 1
        if numbers[each.reason, each.about.namespace] <= MOST_ALIKE:
            few[each] = None
    return few, [
        f"{number - MOST_ALIKE} more {reason} in {f'namespace {where}' if where else 'the cluster'}"
        for (reason, where), number in numbers.items()
        if number > MOST_ALIKE
    ]


def not_made(outcomes: Iterable[Outcome]) -> Iterator[str]:
    reasons = Counter(each.not_made for each in outcomes if not each.findings and each.not_made)
    for why, number in reasons.items():
        yield _wrapped(f"- {number} check{'s' * (number > 1)} not made: {why}", "", more="  ")


def worst(found: Iterable[Finding]) -> Severity | None:
    """Return how bad the worst of them is; None for none."""
    there = {each.severity for each in found}
    return next(
        (each for each in (Severity.ERROR, Severity.UNKNOWN, Severity.WARNING) if each in there),
        None,
    )


def shown(finding: Finding) -> str:
    about = finding.about if finding.about.namespace else finding.about.name
    told = f"{finding.kind} {about} ({finding.reason})".replace("  ", " ")
    paragraphs = [finding.what, finding.mend]
    if finding.switch:
        paragraphs.append(f"or start NMI, for the whole cluster, with {finding.switch}")
    colour = _MARKS[finding.severity][2]
    return "\n".join(
        [
            *(click.style(line, fg=colour, bold=True) for line in _wrapped(told, "").splitlines()),
            *(_wrapped(each, "  ") for each in paragraphs),
            f"  see {finding.link}",
        ]
    )


def _wrapped(text: str, indent: str, *, more: str = "") -> str:
    """Return a paragraph; words, such as ids and flags, stay whole.

    It may be a tenant's: conditions and events are objects of a namespace.
    """
    return textwrap.fill(
        printable(text),
        min(COLUMNS, terminal_width() or COLUMNS) - 4,
        initial_indent=indent,
        subsequent_indent=more or indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def summary(found: Sequence[Finding]) -> str:
    numbers = dict.fromkeys(Severity, 0)
    for finding in found:
        numbers[finding.severity] += 1
    words = {
        Severity.ERROR: ("error", "errors"),
        Severity.WARNING: ("warning", "warnings"),
        Severity.UNKNOWN: ("thing that could not be checked", "things that could not be checked"),
    }
    parts = [f"{number} {words[each][number != 1]}" for each, number in numbers.items() if number]
    return f"Found: {', '.join(parts)}." if parts else "Nothing is wrong."


def plain(group: str, finding: Finding) -> dict[str, str]:
    return {
        "group": group,
        "severity": finding.severity.value,
        "kind": finding.kind,
        "namespace": finding.about.namespace,
        "name": finding.about.name,
        "reason": str(finding.reason),
        "message": printable(finding.what),
        "nextStep": printable(finding.mend),
        "switch": finding.switch,
        "link": finding.link,
    }
