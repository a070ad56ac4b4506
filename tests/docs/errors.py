"""The texts of the product's errors, read off its code, and the tables made of them.

`python -m tests.docs.errors` (`scripts/reference`) writes the tables of refusals and of commands in
docs/how-to/troubleshoot.md. The other tables there are written by hand, because the code does not
say their next steps; a test compares their texts with the code's.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from podidentity.core.errors import PodIdentityError
from podidentity.nmi.request.errors import REFUSALS
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs/how-to/troubleshoot.md"
CODE = ROOT / "src/podidentity"
ANY = "…"
"""Stands for what differs from case to case, in a text."""

PASSED_ON = {
    "told",  # the words of Entra or IMDS
    "f'{told} (status {status})'",
    "str(error)",  # the words of another error, which has its own entry
    "str(failure.error)",
    "first",
    "error.message",
    "f'{name} {error}'",
    "f'{failed}: {error}'",
    "f'{folder}: {error.strerror}'",
    "getattr(error, 'strerror', None) or str(error)",
}
"""What errors are raised with that is no text of their own."""

COMMONEST = ("NoBinding", "NotPermitted", "NoLabel", "NotAssigned", "NoIdentity")
"""The refusals that people meet most, first in their table."""

STEPS = {
    "Cannot …. Azure says …": "It names the role that is missing, or what to correct.",
    "NMI is not ready on every node after … s": "The lines above it say what each pod lacks.",
    "Nothing was changed": "Answer with yes, or give `--yes`.",
    "podidentity … needs nothing in Azure for …": "Leave `--azure` out.",
}
"""The next steps of commands' errors that do not say theirs in the code."""


@dataclass(frozen=True)
class Text:
    """The text of an error."""

    kind: str
    """The class that is raised with it."""
    text: str
    """With ANY for what differs."""
    place: str
    next_step: str = ""
    """Of a command's error, as the code has it."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text[:60]}"


def _subclasses(kind: type[PodIdentityError]) -> Iterator[str]:
    yield kind.__name__
    for each in kind.__subclasses__():
        yield from _subclasses(each)


REQUEST = frozenset(_subclasses(PodIdentityError)) - {"Refused"}
NODE = frozenset(
    {
        *("InterceptionError", "NftablesError", "RulesRefused", "ListenError", "CertificateError"),
        *("Untrusted", "Busy", "NotAnAzureNode", "UnusableCertificate", "NoCredential"),
    }
)
COMMAND = frozenset({"CommandError"})


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Return the product's modules by their path below src/podidentity."""
    return {
        str(path.relative_to(CODE)): ast.parse(path.read_text())
        for path in sorted(CODE.rglob("*.py"))
    }


def calls(kinds: frozenset[str]) -> Iterator[tuple[str, str, ast.Call, Scope]]:
    """Yield each call of a class among `kinds`: its name, its place, the call, and its scope."""
    for path, tree in trees().items():
        for scope, node in _scoped(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in kinds:
                    yield name, f"src/podidentity/{path}:{node.lineno}", node, Scope(path, scope)


def _scoped(tree: ast.AST, scope: ast.AST | None = None) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield each node of a module with the innermost function that has it."""
    scope = scope or tree
    for each in ast.iter_child_nodes(tree):
        inner = each if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        yield scope, each
        yield from _scoped(each, inner)


@dataclass(frozen=True)
class Scope:
    """Where a name has its meaning."""

    path: str
    function: ast.AST

    def value(self, name: str) -> ast.expr | None:
        """Return the expression that a name stands for, if it is given one alone."""
        for tree in (self.function, trees()[self.path], *trees().values()):
            if tree is not self.function and not name.isupper():
                return None
            nodes = ast.walk(tree) if tree is self.function else iter(getattr(tree, "body", ()))
            values = [
                each.value
                for each in nodes
                if isinstance(each, ast.Assign)
                and name in {getattr(target, "id", "") for target in each.targets}
            ]
            if values:
                return values[0] if len(values) == 1 else None
        return None


def written(node: ast.expr, scope: Scope) -> str | None:
    """Return the text that an expression makes, with ANY in it; None if it makes no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = (
            str(each.value) if isinstance(each, ast.Constant) else _part(each, scope)
            for each in node.values
        )
        return re.sub(rf"(?:{ANY})+", ANY, "".join(parts))
    if isinstance(node, ast.Name):
        value = scope.value(node.id)
        return written(value, scope) if value else None
    if isinstance(node, ast.Attribute) and node.attr.isupper():
        return written(ast.Name(node.attr), scope)
    return None


def _part(node: ast.expr, scope: Scope) -> str:
    if isinstance(node, ast.FormattedValue) and node.conversion < 0:
        return written(node.value, scope) or ANY
    return ANY


@functools.cache
def texts(kinds: frozenset[str]) -> tuple[list[Text], dict[str, str]]:
    """Return the texts of errors, and what is passed on in place of one, by its place."""
    found, passed = [], {}
    for name, place, call, scope in calls(kinds):
        if not call.args:
            continue
        step = written(call.args[1], scope) if len(call.args) > 1 else ""
        told = [written(*each) for each in _alternatives(call.args[0], scope)]
        if all(each and re.search(r"[a-z]{2}", each.replace("status", "")) for each in told):
            found += [Text(name, each or "", place, step or "") for each in told]
        else:
            passed[place] = ast.unparse(call.args[0])
    return found, passed


def _alternatives(node: ast.expr, scope: Scope) -> list[tuple[ast.expr, Scope]]:
    """Return the expressions of which one is the text.

    Of a choice it is the side that is a text; of a call of the same module what it returns.
    """
    if isinstance(node, ast.IfExp):
        return [(each, scope) for each in (node.body, node.orelse) if written(each, scope)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        for each in trees()[scope.path].body:
            if isinstance(each, ast.FunctionDef) and each.name == node.func.id:
                return [
                    (found.value, Scope(scope.path, each))
                    for found in ast.walk(each)
                    if isinstance(found, ast.Return) and found.value
                ]
    return [(node, scope)]


def code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    return f"`{' '.join(text.split())}`".replace("|", "\\|") if text else ""


@functools.cache
def refusals() -> str:
    """Return the table of refusals, a line for each place that makes one."""
    rows = []
    for _, _, call, scope in calls(frozenset({"Refusal"})):
        given = {each.arg: each.value for each in call.keywords}
        reason = ast.unparse(given["reason"]).removeprefix("Reason.")
        word = next((each.value for each in REFUSALS if each.name == reason), reason)
        status = next((row[0].value for each, row in REFUSALS.items() if each.name == reason), "")
        message, step = (written(given[each], scope) or ANY for each in ("message", "next_step"))
        told = "as it says" if step == ANY else code(step)
        rows.append(f"| `{word}` | {status} | {code(message)} | {told} |")
    return _table("| reason | status | what is wrong | next step |", rows)


@functools.cache
def commands() -> str:
    """Return the table of commands' errors that say their own next step."""
    found, _ = texts(COMMAND)
    rows = [
        f"| {code(each.text)} | {code(each.next_step) or STEPS.get(each.text, '')} |"
        for each in found
    ]
    return _table("| the command says | next step, as it says itself |", rows)


def _table(heading: str, rows: list[str]) -> str:
    def order(row: str) -> tuple[int, str]:
        first = [row.startswith(f"| `{reason}`") for reason in COMMONEST]
        return first.index(True) if any(first) else len(first), row

    line = "|---" * heading.count("|", 1) + "|"
    return "\n".join([heading, line, *dict.fromkeys(sorted(rows, key=order))]) + "\n"


GENERATED = {"refusals": refusals, "commands": commands}


def generated(page: str) -> str:
    """Return the page with the tables that the code makes."""
    for name, table in GENERATED.items():
        begin, end = f"<!-- {name}: written by scripts/reference -->\n", f"<!-- end of {name} -->\n"
        before, opened, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise ValueError(f"{PAGE} has lost the lines that mark the table of {name}")
        page = f"{before}{begin}\n{table()}\n{end}{after}"
    return page


def by_hand(page: str) -> list[str]:
    """Return the texts that the tables written by hand have entries for."""
    for name in GENERATED:
        page = re.sub(rf"<!-- {name}: .*?<!-- end of {name} -->", "", page, flags=re.DOTALL)
    cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    return [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text()))
