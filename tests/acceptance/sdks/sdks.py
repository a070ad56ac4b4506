"""Five SDKs in pods of one sandbox, and what each makes of the situations that a pod may be in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.node.client import execute
from tests.acceptance.stage import Stage, stage

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
INSTALLED = ROOT / ".venvs/sdks"
EXPECTED: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "expectations.yaml").read_text())
GROUP, SECRET, TEXT = "sdks", "a secret", "a text"
IMDS_CACHE = 6
"""Seconds: less than NMI holds a request of a new identity."""
LOOK = (
    *("curl", "-s", "-o", "/dev/null", "-H", "Metadata:true"),
    "http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource=https://database.windows.net",
)
"""A request that no cache answers, so that IMDS looks."""
PODS = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {labels}}}
spec:
  containers: [{{name: main, image: idle, volumeMounts: [{{name: sdks, mountPath: {sdks}}}]}}]
  volumes: [{{name: sdks, hostPath: {{path: {sdks}, type: Directory}}}}]
---
"""

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
class Scene:
    """A sandbox with what the SDKs ask for."""

    place: Stage
    identity: Mapping[str, str]
    """id, clientId and principalId, as ARM has them."""
    late: Mapping[str, str]
    """Another, that is added while its pod asks."""

    def task(self, sdk: Sdk, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a program is to do for a row of the expectations."""
        vault = {"name": "demo", "vault": "https://sdks-open-kv.vault.azure.net"}
        blob = {"account": "https://sdksopen.blob.core.windows.net", "container": "demo"}
        calls: dict[str, dict[str, Any]] = {
            "whose": {"scope": "https://vault.azure.net/.default"},
            "secret": vault,
            "closed secret": {**vault, "vault": "https://sdks-closed-kv.vault.azure.net"},
            "blob": {**blob, "name": "x.txt", "text": TEXT},
            "closed blob": {
                "account": "https://sdksclosed.blob.core.windows.net",
                "container": "demo",
                "name": "x.txt",
                "text": TEXT,
            },
        }
        return {
            "credential": row["credential"],
            "with": self._naming(sdk, row["by"]),
            "call": row["call"].split(" ")[-1],
            "ask": calls[row["call"]],
        }

    def _naming(self, sdk: Sdk, by: str) -> dict[str, Any]:
        ids = {
            "client_id": self.identity["clientId"],
            "object_id": self.identity["principalId"],
            "resource_id": self.identity["id"],
            "a wrong id": "00000000-0000-0000-0000-000000000001",
        }
        if by == "nothing":
            return {}
        kind = by if by in {"object_id", "resource_id"} else "client_id"
        if kind in sdk.names:
            return {sdk.names[kind]: ids[by]}
        return {"identity_config": {kind: ids[by]}}

    async def outcomes(self, pod: str, situation: str) -> Outcomes:
        """Run all SDKs in a pod; return what came of each row of the situation."""
        ran = await asyncio.gather(*(self._run(pod, name, situation) for name in SDKS))
        return {key: outcome for one in ran for key, outcome in one.items()}

    async def asked_too_early(self, azure: AzureOperator) -> Outcomes:
        """Let the SDKs ask in a pod whose binding is made once the first of them was refused.

        The node's IMDS has just looked at its identities, and goes on without the new one.
        """
        asking = asyncio.create_task(self.outcomes("late", "late"))
        await self._refused("late")
        await azure.identity_cache(IMDS_CACHE)
        await execute(self.place.plan, "default", "bound", LOOK)
        await asyncio.to_thread(self.add, "late", self.late)
        return await asking

    async def _refused(self, pod: str) -> None:
        """Return when NMI's log names the pod."""
        listed = self.place.run(
            "podidentity", "sandbox", "get", "pods", "-n", "kube-system", "-o", "json"
        )
        (nmi,) = [one["metadata"]["name"] for one in json.loads(listed)["items"]]
        program = await asyncio.create_subprocess_exec(
            *("podidentity", "sandbox", "logs", "--name", self.place.plan.name),
            *("-n", "kube-system", "-f", nmi),
            stdout=asyncio.subprocess.PIPE,
        )
        assert program.stdout is not None
        while f" pod={pod} ".encode() not in await program.stdout.readline():
            assert not program.stdout.at_eof()
        program.terminate()
        await program.wait()

    def add(self, name: str, identity: Mapping[str, str]) -> None:
        """Let the pods labelled `name` use an identity."""
        command = ("podidentity", "add", "--namespace", "default", "--name", name)
        self.place.run(*command, "--identity-resource-id", identity["id"])

    async def _run(self, pod: str, name: str, situation: str) -> Outcomes:
        sdk, rows = SDKS[name], EXPECTED[situation]
        tasks = json.dumps([self.task(sdk, row) for row in rows])
        program = (HERE / "programs" / sdk.program).read_bytes()
        plan, command = self.place.plan, [*sdk.command, tasks]
        done = await execute(plan, "default", pod, command, stdin=program, timeout=120)
        assert done.exit == 0, f"{name}: {done.stderr.decode()}"
        # The ids of this sandbox stand for themselves in the expectations.
        said = done.stdout.decode()
        for one in (self.identity, self.late):
            said = said.replace(one["clientId"].lower(), "its client id")
        told: list[Outcome] = json.loads(said)
        return {(name, row["it"]): outcome for row, outcome in zip(rows, told, strict=True)}


async def every_outcome() -> dict[str, Outcomes]:
    """Put all SDKs into all situations; return what came of each, by situation."""
    async with stage("sdks") as place, AzureOperator(place.plan) as azure:
        scene = await prepared(place, azure)
        found = {pod: await scene.outcomes(pod, pod) for pod in ("bound", "unlabelled")}
        found["late"] = await scene.asked_too_early(azure)
        place.run("podidentity", "disable")
        found["away"] = await scene.outcomes("bound", "away")
        return found


async def prepared(place: Stage, azure: AzureOperator) -> Scene:
    """Make what the SDKs ask for, and the pods in which they run."""
    await azure.create_group(GROUP)
    mine, late = [await azure.create_identity(GROUP, name) for name in ("mine", "late")]
    reader = mine["principalId"]
    for vault, readers in (("sdks-open-kv", [reader]), ("sdks-closed-kv", [])):
        await azure.create_vault(GROUP, vault, readers)
        await azure.put_secret(vault, "demo", SECRET)
    for account, writers in (("sdksopen", [reader]), ("sdksclosed", [])):
        await azure.create_account(GROUP, account, writers)
        await azure.create_container(account, "demo")
    place.run("podidentity", "enable")
    scene = Scene(place, mine, late)
    scene.add("mine", mine)
    pods = {
        "bound": "{aadpodidbinding: mine}",
        "unlabelled": "{}",
        "late": "{aadpodidbinding: late}",
    }
    manifests = [PODS.format(name=n, labels=labels, sdks=INSTALLED) for n, labels in pods.items()]
    place.run("podidentity", "sandbox", "apply", "--wait", "-f", "-", given="".join(manifests))
    return scene
