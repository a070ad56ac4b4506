from __future__ import annotations

import pytest

from podidentity.core.flag_values import parse_taint_key


@pytest.mark.parametrize(
    "key",
    [
        *("a", "A.b_c-d", "example.com/a", "startup-taint.cluster-autoscaler.kubernetes.io/x"),
        f"{'x' * 253}/{'X' * 63}",
    ],
)
def test_a_key_is_a_qualified_name(key: str) -> None:
    assert parse_taint_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "a/", "/a", "a/b/c", "-a", "a-", "a b", "A.com/x", "a'", 'a"', "a=b", "a\n"),
        *("x" * 64, f"{'x' * 254}/a", "a..b/c"),
    ],
)
def test_nothing_else_is_a_key(key: str) -> None:
    with pytest.raises(ValueError, match="is no key of a taint"):
        parse_taint_key(key)
