"""Five SDKs: how each is run in a pod, what it is to do there, and what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from podidentity_sandbox.node.client import execute
from podidentity_sandbox.plan import Plan

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
INSTALLED = ROOT / ".venvs/sdks"
EXPECTED: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "expectations.yaml").read_text())
TEXT = "a text"

_BLOB = {"container": "demo", "name": "x.txt", "text": TEXT}
CALLS: dict[str, dict[str, str]] = {
    "whose": {"scope": "https://vault.azure.net/.default"},
    "secret": {"name": "demo", "vault": "https://sdks-open-kv.vault.azure.net"},
    "closed secret": {"name": "demo", "vault": "https://sdks-closed-kv.vault.azure.net"},
    "blob": {"account": "https://sdksopen.blob.core.windows.net", **_BLOB},
    "closed blob": {"account": "https://sdksclosed.blob.core.windows.net", **_BLOB},
}
"""What the programs are told; the last word is the name of their function."""
WRONG = "00000000-0000-0000-0000-000000000001"
_FIELDS = {"client_id": "clientId", "object_id": "principalId", "resource_id": "id"}

Outcome = Mapping[str, Any]
"""value, or error and message; seconds."""
Outcomes = Mapping[tuple[str, str], Outcome]
"""By the SDK's name and the row's `it`."""


@dataclass(frozen=True)
class Sdk:
    """One SDK: how it is run, and which program uses it."""

    command: tuple[str, ...]
    program: str
    names: Mapping[str, str]
    """How its ManagedIdentityCredential calls the kinds of ids."""


def _python(environment: str, program: str) -> Sdk:
    return Sdk((f"{INSTALLED}/{environment}/bin/python", "-"), program, {"client_id": "client_id"})


SDKS = {
    "python": _python("new", "python_sync.py"),
    "python-aio": _python("new", "python_aio.py"),
    "python-2022": _python("old", "python_sync.py"),
    "python-2022-aio": _python("old", "python_aio.py"),
    "node": Sdk(
        ("env", f"NODE_PATH={INSTALLED}/node/node_modules", "node", "-"),
        "node.cjs",
        {"client_id": "clientId", "object_id": "objectId", "resource_id": "resourceId"},
    ),
}


@dataclass(frozen=True)
class Runs:
    """The SDKs in the pods of a sandbox."""

    plan: Plan
    identities: Mapping[str, Mapping[str, str]]
    """By name: clientId, and principalId and id (of the resource) where it has them."""

    async def outcomes(self, pod: str, situation: str, namespace: str = "default") -> Outcomes:
        """Run all SDKs in a pod; return what came of each row of the situation."""
        runs = (self._run(namespace, pod, name, situation) for name in SDKS)
        return {key: outcome for one in await asyncio.gather(*runs) for key, outcome in one.items()}

    def task(self, sdk: Sdk, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a program is to do for a row of the expectations."""
        return {
            "credential": row["credential"],
            "with": self._naming(sdk, row["by"], row.get("of", "mine")),
            "call": row["call"].split(" ")[-1],
            "ask": CALLS[row["call"]],
        }

    def _naming(self, sdk: Sdk, by: str, of: str) -> dict[str, Any]:
        if by == "nothing":
            return {}
        kind = by if by in _FIELDS else "client_id"
        named = WRONG if by == "a wrong id" else self.identities[of][_FIELDS[kind]]
        if kind in sdk.names:
            return {sdk.names[kind]: named}
        return {"identity_config": {kind: named}}

    async def _run(self, namespace: str, pod: str, name: str, situation: str) -> Outcomes:
        sdk, rows = SDKS[name], EXPECTED[situation]
        tasks = json.dumps([self.task(sdk, row) for row in rows])
        program = (HERE / "programs" / sdk.program).read_bytes()
        command = [*sdk.command, tasks]
        done = await execute(self.plan, namespace, pod, command, stdin=program, timeout=120)
        assert done.exit == 0, f"{name}: {done.stderr.decode()}"
        # The ids of this sandbox stand for themselves in the expectations.
        said = done.stdout.decode()
        for one, ids in self.identities.items():
            said = said.replace(ids["clientId"].lower(), f"client id of {one}")
        told: list[Outcome] = json.loads(said)
        return {(name, row["it"]): outcome for row, outcome in zip(rows, told, strict=True)}
