"""Custom resources that are long or deep without end: every node's agent reads all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from podidentity.core.resources import Malformed
from podidentity.wire.manifests import parse_assigned, parse_binding, parse_exception
from tests.fakes import CLIENT
from tests.wire.manifests import ENORMOUS, raw

Parse = Callable[[bytes], Any]
RECORD = {"pod": "a", "podNamespace": "shop", "nodename": "n1"}


@pytest.mark.parametrize(
    ("parse", "spec"),
    [
        (parse_binding, {"azureIdentity": "orders", "selector": "a" * 64}),
        (parse_binding, {"azureIdentity": ENORMOUS, "selector": "app"}),
        (parse_exception, {"podLabels": {"app": ENORMOUS}}),
        (parse_exception, {"podLabels": {ENORMOUS: "app"}}),
        (parse_exception, {"podLabels": {f"app-{number}": "" for number in range(101)}}),
        (parse_exception, {"azureIdentities": [CLIENT] * 101}),
        (
            parse_assigned,
            RECORD | {"pod": ENORMOUS, "azureIdentityRef": {"metadata": {"name": "a"}}},
        ),
        (parse_assigned, RECORD | {"azureIdentityRef": {"metadata": {"name": ENORMOUS}}}),
    ],
)
def test_what_no_object_can_be_named_fills_no_memory(parse: Parse, spec: Any) -> None:
    found = parse(raw(spec))
    assert isinstance(found, Malformed)
    assert len(found.why) < 200


@pytest.mark.parametrize("depth", range(940, 1000))
def test_a_value_is_a_value_error_or_malformed_however_deep_it_is(depth: int) -> None:
    spec = b'{"azureIdentity":"o","selector":"a","weight":' + b"[" * depth + b"]" * depth + b"}"
    with suppress(ValueError):
        assert isinstance(
            parse_binding(b'{"metadata":{"name":"o"},"spec":' + spec + b"}"), Malformed
        )
