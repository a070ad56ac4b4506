"""Values of the command line, good and bad."""

from __future__ import annotations

from typing import Any

import click
import pytest

from podidentity.cli.parameters import (
    ClientIdType,
    Duration,
    Name,
    PodRef,
    ResourceIdType,
    Selector,
)
from podidentity.core.resources import ObjectRef
from tests.cli.ids import CLIENT, IDENTITY, SCALE_SET


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration(), "90", 90.0),
        (Duration(), "90s", 90.0),
        (Duration(), "2m", 120.0),
        (Duration(), "1h", 3600.0),
        (ClientIdType(), CLIENT.upper(), CLIENT),
        (ResourceIdType(), IDENTITY, IDENTITY),
        (Selector(), "Orders_1.x-y", "Orders_1.x-y"),
        (Selector(), "a" * 63, "a" * 63),
        (Name(), "orders.v1-x", "orders.v1-x"),
        (PodRef(), "shop/orders-0", str(ObjectRef("shop", "orders-0"))),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_good_value_is_taken(kind: click.ParamType[Any], text: str, value: object) -> None:
    found = kind.convert(text, None, None)
    assert (found if isinstance(found, float) else str(found)) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Duration(), "", "is not a duration such as 90s"),
        (Duration(), "-1s", "is not a duration"),
        (Duration(), "1.5d", "is not a duration"),
        (ClientIdType(), "orders", "must be a GUID, not 'orders'"),
        (ResourceIdType(), SCALE_SET, "must match /subscriptions/<subscription>/"),
        (Selector(), "", "cannot be a label's value"),
        (Selector(), "a" * 64, "cannot be a label's value"),
        (Selector(), "-a", "cannot be a label's value"),
        (Selector(), "ä", "cannot be a label's value"),
        (Selector(), "app=x", "cannot be a label's value"),
        (Name(), "Orders", "cannot be a name"),
        (Name(), "a/b", "cannot be a name"),
        (Name(), "", "cannot be a name"),
        (PodRef(), "orders-0", "is not NAMESPACE/NAME"),
        (PodRef(), "shop/", "is not NAMESPACE/NAME"),
        (PodRef(), "a/b/c", "is not NAMESPACE/NAME"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_bad_value_is_wrong_usage(kind: click.ParamType[Any], text: str, words: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert words in caught.value.message
