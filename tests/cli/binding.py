"""Steps and queries that the tests of add, list, delete and explain share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from podidentity.cli.azure_access import ATTACHED_TO
from tests.cli.conftest import Ran
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]


def add(run: Run, identity: str, ns: str, name: str = "orders", *more: str) -> Ran:
    return run("add", "--namespace", ns, "--name", name, "--identity-resource-id", identity, *more)


def identity(world: World, ns: str, name: str = "orders") -> Any:
    return world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/{name}")


def binding(world: World, ns: str, name: str = "orders-binding") -> Any:
    return world.get(f"{CUSTOM}/namespaces/{ns}/azureidentitybindings/{name}")


def record(found: Any) -> Any:
    return json.loads(found["metadata"].get("annotations", {}).get(ATTACHED_TO, "[]"))
