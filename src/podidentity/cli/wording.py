"""What the help of all commands looks like."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """Return the end of a command's help; click keeps the lines of it as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
