"""What can go wrong in a line of a module: each small change that a test should notice.

A mutation changes one expression or statement as a tired person might: a comparison turned, an
`and` for an `or`, a condition or a row of a table left out, a statement forgotten. What no test of
behaviour should notice is left as it is: docstrings, annotations, texts for people (words with a
space between them, f-strings, what is logged) and numbers that have a name of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Place = tuple[ast.AST, str, int | None]
"""A parent, its field, and the position there if that is a list."""


@dataclass(frozen=True, order=True)
class Mutation:
    """One change of one module."""

    number: int
    """Its place among all of the module's."""
    line: int
    where: str
    """The function or class that it is in, as `Class.method`; empty: the module's own lines."""
    change: str
    """What stands there before → afterwards; `#2`: the second such change of `where`."""


def mutations(source: str) -> list[Mutation]:
    """Return all mutations of a module, in the order of its lines."""
    found, seen = list[Mutation](), dict[tuple[str, str], int]()
    for number, (_, node, new, where) in enumerate(_changes(ast.parse(source))):
        change = f"{_said(node)} → {_said(new)}"
        times = seen[where, change] = seen.get((where, change), 0) + 1
        change += f" #{times}" if times > 1 else ""
        found.append(Mutation(number, getattr(node, "lineno", 0), where, change))
    return found


def mutated(source: str, number: int) -> ast.Module:
    """Return the module with one mutation."""
    tree = ast.parse(source)
    for each, ((parent, field, index), node, new, _) in enumerate(_changes(tree)):
        if each == number:
            made = ast.copy_location(new if new is not None else ast.Pass(), node)
            if index is None:
                setattr(parent, field, made)
            else:
                getattr(parent, field)[index] = made
            return ast.fix_missing_locations(tree)
    raise ValueError(f"it has no mutation {number}")


def _said(node: ast.AST | None) -> str:
    if node is None:
        return "(nothing)"
    if isinstance(node, ast.comprehension | ast.match_case):
        return " ".join(ast.unparse(each) for each in ast.iter_child_nodes(node))
    text = " ".join(ast.unparse(node).split())
    return text if len(text) < 160 else f"{text[:100]} … {text[-50:]}"


Change = tuple[Place, ast.AST, ast.AST | None, str]


def _changes(tree: ast.Module) -> Iterator[Change]:
    yield from _below(tree, (), in_function=False)


_ANNOTATIONS = {"annotation", "returns", "decorator_list", "bases"}


def _below(parent: ast.AST, names: tuple[str, ...], *, in_function: bool) -> Iterator[Change]:
    """Yield the changes below a node, from the outermost to the innermost."""
    if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        names = (*names, parent.name)
        in_function = in_function or not isinstance(parent, ast.ClassDef)
    for field, value in ast.iter_fields(parent):
        if field in _ANNOTATIONS:
            continue
        for index, node in _nodes(value):
            if _is_for_people(node, parent):
                continue
            place = (parent, field, index)
            for new in _replacements(node, place, in_function=in_function):
                yield place, node, new, ".".join(names)
            yield from _below(node, names, in_function=in_function)


def _nodes(value: object) -> Iterator[tuple[int | None, ast.AST]]:
    if isinstance(value, ast.AST):
        yield None, value
    elif isinstance(value, list):
        yield from ((index, each) for index, each in enumerate(value) if isinstance(each, ast.AST))


def _is_for_people(node: ast.AST, parent: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr):
        value = node.value
        return isinstance(value, ast.Constant) or ast.unparse(value).startswith(("_log.", "log."))
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
    if isinstance(node, ast.Assign):
        return all(ast.unparse(each).startswith("__") for each in node.targets)
    if isinstance(node, ast.ClassDef):
        return any(ast.unparse(each).startswith("Protocol") for each in node.bases)
    if isinstance(node, ast.Constant) and _is_number(node.value):
        named = isinstance(parent, ast.Assign | ast.AnnAssign | ast.keyword | ast.arguments)
        return named or isinstance(parent, ast.Slice)
    return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_CALLED = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "startswith": "endswith",
    "endswith": "startswith",
    "partition": "rpartition",
    "rpartition": "partition",
    "removeprefix": "removesuffix",
    "removesuffix": "removeprefix",
}
_WITHOUT = {"lower", "upper", "casefold", "strip", "lstrip", "rstrip"}


def _replacements(node: ast.AST, place: Place, *, in_function: bool) -> Iterator[ast.AST | None]:
    """Yield what a node is replaced by, one after the other; None: the statement goes."""
    if isinstance(node, ast.stmt):
        yield from _of_statement(node, place, in_function=in_function)
    for kind, changes in _BY_KIND.items():
        if isinstance(node, kind):
            yield from changes(node)


def _of_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for index, each in enumerate(node.ops):
        ops = [*node.ops]
        ops[index] = _COMPARED[type(each)]()
        yield ast.Compare(node.left, ops, node.comparators)


def _of_and_or(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for index in range(len(node.values)):
        left = _without(node.values, index)
        yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)


def _of_unary(node: ast.UnaryOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.Not):
        yield node.operand


def _of_binary(node: ast.BinOp) -> Iterator[ast.AST]:
    if type(node.op) in _COUNTED and not _joins_text(node):
        yield ast.BinOp(node.left, _COUNTED[type(node.op)](), node.right)


def _of_elements(node: ast.Set | ast.List) -> Iterator[ast.AST]:
    if len(node.elts) > 1 and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        for index in range(len(node.elts)):
            yield _with(node, elts=_without(node.elts, index))


def _of_dict(node: ast.Dict) -> Iterator[ast.AST]:
    if len(node.keys) > 1:
        for index in range(len(node.keys)):
            yield ast.Dict(_without(node.keys, index), _without(node.values, index))


def _of_choice(node: ast.IfExp) -> Iterator[ast.AST]:
    yield from (_with(node, test=test) for test in _turned(node.test))


def _of_filters(node: ast.comprehension) -> Iterator[ast.AST]:
    for index in range(len(node.ifs)):
        yield _with(node, ifs=_without(node.ifs, index))


def _without(values: Sequence[Any], index: int) -> list[Any]:
    return [*values[:index], *values[index + 1 :]]


def _with(node: ast.AST, **fields: object) -> ast.AST:
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def _turned(test: ast.expr) -> Iterator[ast.expr]:
    """Yield the opposite of a condition that has no operator whose own change would be that."""
    if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
        yield ast.UnaryOp(ast.Not(), test)


_FORGOTTEN = (ast.Expr, ast.AugAssign, ast.Raise, ast.Delete, ast.Continue)


def _of_statement(node: ast.stmt, place: Place, *, in_function: bool) -> Iterator[ast.AST | None]:
    if isinstance(node, ast.If | ast.While):
        yield from (_with(node, test=test) for test in _turned(node.test))
    elif isinstance(node, ast.Match):
        for each in range(len(node.cases) - 1):
            yield _with(node, cases=_without(node.cases, each))
    elif in_function and (isinstance(node, _FORGOTTEN) or _may_go(node, place)):
        yield None


def _may_go(node: ast.stmt, place: Place) -> bool:
    """Whether what follows can do without it: names stay defined, and a function's end is told."""
    parent, field, index = place
    if isinstance(node, ast.Return):
        outermost = isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef)
        return not (outermost and index == len(getattr(parent, field)) - 1)
    return isinstance(node, ast.Assign) and all(
        isinstance(each, ast.Attribute | ast.Subscript) for each in node.targets
    )


def _of_constant(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str) and len(value.split()) < 2:
        yield ast.Constant(value + "X")
    elif isinstance(value, bytes):
        yield ast.Constant(value + b"X")


def _joins_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(each, ast.JoinedStr)
        or (isinstance(each, ast.Constant) and isinstance(each.value, str | bytes))
        for each in (node.left, node.right)
    )


_NAMED = (ast.Name, ast.Attribute)
_OF_ONE_ORDER = {"isinstance", "getattr", "min", "max"}


def _of_call(node: ast.Call) -> Iterator[ast.AST]:
    func, args = node.func, node.args
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    if (other := _CALLED.get(name)) is not None:
        yield _with(node, func=_with(func, **{"attr" if hasattr(func, "attr") else "id": other}))
    if name in _WITHOUT and isinstance(func, ast.Attribute) and not args:
        yield func.value
    two = len(args) > 1 and all(isinstance(each, _NAMED) for each in args[:2])
    if two and name not in _OF_ONE_ORDER:
        yield _with(node, args=[args[1], args[0], *args[2:]])
    if name == "replace" and len(node.keywords) > 1:
        for index in range(len(node.keywords)):
            yield _with(node, keywords=_without(node.keywords, index))


_BY_KIND: dict[Any, Callable[[Any], Iterator[ast.AST]]] = {
    ast.Compare: _of_comparison,
    ast.BoolOp: _of_and_or,
    ast.UnaryOp: _of_unary,
    ast.BinOp: _of_binary,
    ast.Constant: _of_constant,
    ast.Call: _of_call,
    (ast.Set, ast.List): _of_elements,
    ast.Dict: _of_dict,
    ast.IfExp: _of_choice,
    ast.comprehension: _of_filters,
}
