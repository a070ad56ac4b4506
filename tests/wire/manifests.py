"""Custom resources as an API server sends them, and JSON of any shape for their fields."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from podidentity.core.ids import ObjectRef

META = {"namespace": "shop", "name": "orders"}
REF = ObjectRef("shop", "orders")
ENORMOUS = "x" * 1_000_000

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def raw(spec: Any, status: Any = None, **meta: Any) -> bytes:
    """Return an object named shop/orders."""
    content = {"metadata": META | meta, "spec": spec}
    return json.dumps(content if status is None else content | {"status": status}).encode()
