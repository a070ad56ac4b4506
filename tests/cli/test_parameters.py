"""Values of the command line, good and bad."""

from __future__ import annotations

from typing import Any

import click
import pytest

from podidentity.cli.parameters import (
    CLIENT_ID,
    DURATION,
    NAME,
    POD,
    RESOURCE_ID,
    SELECTOR,
)
from podidentity.core.resources import ObjectRef
from tests.cli.ids import CLIENT, IDENTITY, SCALE_SET


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (DURATION, "90", 90.0),
        (DURATION, "90s", 90.0),
        (DURATION, "2m", 120.0),
        (DURATION, "1h", 3600.0),
        (CLIENT_ID, CLIENT.upper(), CLIENT),
        (RESOURCE_ID, IDENTITY, IDENTITY),
        (SELECTOR, "Orders_1.x-y", "Orders_1.x-y"),
        (SELECTOR, "a" * 63, "a" * 63),
        (NAME, "orders.v1-x", "orders.v1-x"),
        (POD, "shop/orders-0", str(ObjectRef("shop", "orders-0"))),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_good_value_is_taken(kind: click.ParamType[Any], text: str, value: object) -> None:
    found = kind.convert(text, None, None)
    assert (found if isinstance(found, float) else str(found)) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (DURATION, "", "is not a duration such as 90s"),
        (DURATION, "-1s", "is not a duration"),
        (DURATION, "1.5d", "is not a duration"),
        (CLIENT_ID, "orders", "must be a GUID, not 'orders'"),
        (RESOURCE_ID, SCALE_SET, "must match /subscriptions/<subscription>/"),
        (SELECTOR, "", "cannot be a label's value"),
        (SELECTOR, "a" * 64, "cannot be a label's value"),
        (SELECTOR, "-a", "cannot be a label's value"),
        (SELECTOR, "ä", "cannot be a label's value"),
        (SELECTOR, "app=x", "cannot be a label's value"),
        (NAME, "Orders", "cannot be a name"),
        (NAME, "a/b", "cannot be a name"),
        (NAME, "", "cannot be a name"),
        (POD, "orders-0", "is not NAMESPACE/NAME"),
        (POD, "shop/", "is not NAMESPACE/NAME"),
        (POD, "a/b/c", "is not NAMESPACE/NAME"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_bad_value_is_wrong_usage(kind: click.ParamType[Any], text: str, words: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert words in caught.value.message
