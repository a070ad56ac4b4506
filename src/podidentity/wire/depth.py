"""JSON that is nested without end, cut to a depth at which it can be read.

Whoever may create one object may nest it a thousand times, in a field or in its `managedFields`,
and a decoder gives up on the whole list in which it stands: nobody's objects would be read any
more. What is that deep is nothing that anybody reads: so it is cut, and the rest stays.

https://github.com/golang/go/issues/31789: API servers stop at ten thousand.
"""

from __future__ import annotations

import re

DEEPEST = 200
"""Levels that stay; no object that means something has as many."""

# Strings first: brackets inside of them are text. Nothing is tried twice, however long they are,
# and one without its end is taken as far as it goes: else each quote in it would begin a new try.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def shallow(body: bytes, deepest: int = DEEPEST) -> bytes:
    """Return the JSON in `body` with `null` for each array and object that lies deeper."""
    kept: list[bytes] = []
    depth, begun = 0, 0
    for found in _TOKEN.finditer(body):
        sign = found.group()
        if sign in b"[{":
            depth += 1
            if depth == deepest + 1:
                kept.append(body[begun : found.start()])
        elif sign in b"]}":
            depth -= 1
            if depth == deepest:
                kept.append(b"null")
                begun = found.end()
    if depth <= deepest:
        kept.append(body[begun:])
    return b"".join(kept)
