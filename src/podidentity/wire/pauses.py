"""The ConfigMap by which people tell MIC to change nothing in Azure for a while.

    data:
      all: "true"
      hosts: |
        /subscriptions/…/virtualmachinescalesets/…

One that cannot be read pauses everything: somebody has tried to stop MIC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAUSES = "podidentity-mic-pauses"
"""Its name, in MIC's namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """What is paused."""

    all: bool = False
    hosts: frozenset[str] = frozenset()
    """ARM ids of machines and scale sets in lower case."""

    def __str__(self) -> str:
        if self.all:
            return "MIC changes nothing in Azure until podidentity mic resume."
        if not self.hosts:
            return "MIC changes Azure where it must."
        named = ", ".join(sorted(self.hosts))
        return f"MIC changes nothing on these, until podidentity mic resume --host: {named}."


def parse_pauses(found: Mapping[str, Any] | None) -> Pauses:
    """Return what a ConfigMap, as JSON, pauses; None: nothing."""
    if found is None:
        return Pauses()
    data = found.get("data") or {}
    if not isinstance(data, dict) or not all(isinstance(each, str) for each in data.values()):
        return Pauses(all=True)
    said = data.get("all", "false").strip().lower()
    hosts = frozenset(line.strip().lower() for line in data.get("hosts", "").splitlines())
    return Pauses(all=said not in {"false", ""}, hosts=hosts - {""})


def render_pauses(namespace: str, pauses: Pauses) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": PAUSES,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "podidentity"},
        },
        "data": {
            "all": str(pauses.all).lower(),
            "hosts": "".join(f"{each}\n" for each in sorted(pauses.hosts)),
        },
    }
