"""Regular expressions of schemas: they are Go's, and Python reads two of their words differently.

`(?i)` may stand anywhere and counts to the end of its group: the definition of PrometheusRule has
`^(?i)(abort|warn)?$`. `$` is the end of the text, and never stands before a line's end there.
https://pkg.go.dev/regexp/syntax
"""

from __future__ import annotations

import re
from functools import cache

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|\(\?[imsU-]+\)|.", re.DOTALL)
"""An escaped letter, a class, flags, or any other letter."""


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern of Go's, to be searched for; raise re.error. With `(?m)` it is Python's."""
    end = "$" if "(?m" in pattern else r"\Z"
    done: list[str] = []
    open_flags: list[list[str]] = [[]]
    """Of each group that is open, the flags which stand in it."""
    for piece in _PIECE.findall(pattern):
        here = open_flags[-1]
        if piece.startswith("(?") and piece.endswith(")"):
            here.append(f"{piece[:-1]}:")
            done.append(here[-1])
        elif piece == "(":
            open_flags.append([])
            done.append(piece)
        elif piece == ")":
            done.append(")" * (len(here) + 1))
            if len(open_flags) > 1:
                open_flags.pop()
        elif piece == "|":
            done.append(f"{')' * len(here)}|{''.join(here)}")
        else:
            done.append(end if piece == "$" else piece)
    return re.compile("".join([*done, ")" * len(open_flags[0])]))
