"""JSON as Go prints it: some refusals of the API server show a value by fmt's `%v`."""

from __future__ import annotations

from podidentity_sandbox.cluster.jsontypes import Json


def go_value(value: Json) -> str:
    """Return a decoded JSON value as `%v` of Go prints it: `map[a:1 b:[x y]]`, keys sorted."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_value(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(go_value, value))}]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
