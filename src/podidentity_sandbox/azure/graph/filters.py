"""`$filter` as far as it is served: one clause, of those that a kind of object has.

https://learn.microsoft.com/graph/filter-query-parameter
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from podidentity_sandbox.azure.graph.call import Call
from podidentity_sandbox.azure.graph.errors import GraphError

_T = TypeVar("_T")
Rules = Mapping[str, Callable[[_T, str], bool]]
"""Clauses as patterns, with QUOTED for the value; and what each admits, the value in lower case."""


def admitted(call: Call, found: Iterable[_T], rules: Rules[_T]) -> list[_T]:
    """Return those of `found` that the request asks for; raise GraphError."""
    asked = call.request.parameter("$filter").strip()
    if not asked:
        return list(found)
    for clause, admits in rules.items():
        pattern = clause.replace("QUOTED", "'(?P<value>[^']*)'")
        if match := re.fullmatch(pattern, asked, re.IGNORECASE):
            return [one for one in found if admits(one, match["value"].lower())]
    message = f"Unsupported or invalid query filter clause specified: {asked}."
    raise GraphError(400, "Request_UnsupportedQuery", message)
