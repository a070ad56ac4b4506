"""Amounts of CPU and memory: a container's limit, and what `resourceFieldRef` shows it.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

NODE = {"cpu": "2", "memory": "4Gi"}
"""What a node of the sandbox has: the limit of a container that names none."""
_UNITS = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(
    r"(?P<number>[+-]?([0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?P<unit>n|u|m|[kMGTPE]|[KMGTPE]i|)(?P<power>(?<=[0-9.])[eE][+-]?[0-9]{1,3})?"
)
_BAD = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def amount(text: str) -> Fraction:
    """Return a quantity as a number; raise ValueError, in the words of resource.ParseQuantity."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(_BAD)
    return Fraction(found["number"] + (found["power"] or "")) * _UNITS[found["unit"]]


def memory_limit(container: Mapping[str, Any]) -> int:
    """Return the bytes of memory that a container may have; 0 if it names no limit.

    Raises ValueError for what is no quantity.
    """
    limits = (container.get("resources") or {}).get("limits") or {}
    return math.ceil(amount(str(limits.get("memory", "0"))))


def resource_field(container: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Return what a `resourceFieldRef` names of a container, in units of its divisor, rounded up.

    A limit that is not set is the node's; a request that is not set is the limit, if that is.
    Raises ValueError for what is no quantity.
    """
    which, _, resource = reference["resource"].partition(".")
    given = container.get("resources") or {}
    limit, request = ((given.get(kind) or {}).get(resource) for kind in ("limits", "requests"))
    value = limit if which == "limits" else request or limit
    if value is None:
        value = NODE.get(resource, "0") if which == "limits" else "0"
    divisor = amount(str(reference.get("divisor") or "1")) or Fraction(1)
    return str(math.ceil(amount(str(value)) / divisor))
