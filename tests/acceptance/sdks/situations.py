"""Five SDKs, each run in pods of a sandbox in each of the situations of expectations.yaml."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import GROUP
from podidentity_sandbox.node.client import execute
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import CALM
from tests.acceptance.directory import Directory, bound, manifest, register
from tests.acceptance.sandbox import PATIENCE, Sandbox, one_node

# ---- The SDKs: their programs, and the outcome of each

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

    def _naming(self, sdk: Sdk, by: str | list[str], of: str) -> dict[str, Any] | list[Any]:
        if isinstance(by, list):
            return [self._naming(sdk, each, of) for each in by]
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
        done = await execute(self.plan, namespace, pod, command, stdin=program, timeout=PATIENCE)
        assert done.exit == 0, f"{name}: {done.stderr.decode()}"
        # The ids of this sandbox stand for themselves in the expectations.
        said = done.stdout.decode()
        for one, ids in self.identities.items():
            said = said.replace(ids["clientId"].lower(), f"client id of {one}")
        told: list[Outcome] = json.loads(said)
        return {(name, row["it"]): outcome for row, outcome in zip(rows, told, strict=True)}


# ---- The sandbox

SECRET = "a secret"
IMDS_CACHE, ENTRA_DELAY = 6, 4
"""Seconds: less than NMI holds a request of a new identity."""
LOOK = (
    *("curl", "-s", "-o", "/dev/null", "-H", "Metadata:true"),
    "http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource=https://database.windows.net",
)
"""A request that no cache answers, so that IMDS looks."""
LABELS: dict[str, dict[str, str]] = {
    "mine": {"aadpodidbinding": "mine"},
    "unlabelled": {},
    "late": {"aadpodidbinding": "late"},
    "spreading": {"aadpodidbinding": "spreading"},
    "types": {"aadpodidbinding": "bound"},
    "system": {"aadpodidbinding": "system"},
    "annotated-sdks": {},
    "excepted": {"tier": "excepted"},
}
API = "aadpodidentity.k8s.io/v1"


async def every_outcome() -> dict[str, Outcomes]:
    """Put all SDKs into all situations; return what came of each, by situation.

    Calm but for the delays that a situation is about, which it sets itself.
    """
    async with one_node("sdks", weather=CALM) as place, AzureOperator(place.plan) as azure:
        scenario = await prepared(place, azure)
        run = scenario.runs.outcomes
        found = {"bound": await run("mine", "bound")}
        found["unlabelled"] = await run("unlabelled", "unlabelled")
        found["back"] = await scenario.entra_away_for_a_moment()
        found["types"] = await run("types", "types")
        found["system"] = await run("system", "system")
        found["annotated"] = await run("annotated-sdks", "annotated")
        found["excepted"] = await run("excepted", "excepted", "kube-system")
        found["spreading"] = await scenario.asked_before_entra_knows()
        found["late"] = await scenario.asked_too_early()
        place.run("podidentity", "disable")
        found["away"] = await run("mine", "away")
        return found


@dataclass(frozen=True)
class Scenario:
    """A sandbox with what the SDKs ask for."""

    place: Sandbox
    directory: Directory
    runs: Runs

    async def entra_away_for_a_moment(self) -> Outcomes:
        """Let Entra fail once, at the first token of an identity."""
        azure = self.directory.azure
        await azure.clear_entra_requests()
        azure.weather("entra=[{effect: 503, first: 1}]")
        found = await self.runs.outcomes("types", "back")
        assert await self._entra_said("by-secret") == [503, 200]
        return found

    async def asked_before_entra_knows(self) -> Outcomes:
        """Let the SDKs ask in a pod whose binding comes once the first of them was refused.

        Entra learns of the identity's federated credential only some seconds later.
        """
        azure, directory = self.directory.azure, self.directory
        asking = asyncio.create_task(self.runs.outcomes("spreading", "spreading"))
        await self._refused("spreading")
        azure.weather(f"credentials={ENTRA_DELAY}")
        app = directory.apps["spreading"]
        await directory.trust(app, "pod", "default", "default")
        spec: dict[str, Any] = {
            "type": 3,
            "clientID": app.client_id,
            "tenantID": azure.tenants.home.id,
        }
        await asyncio.to_thread(directory.apply, *bound("spreading", label="spreading", **spec))
        found = await asking
        first, *_, last = await self._entra_said("spreading")
        assert (first >= 400, last) == (True, 200)
        return found

    async def asked_too_early(self) -> Outcomes:
        """Let the SDKs ask in a pod whose binding is made once the first of them was refused.

        The node's IMDS has just looked at its identities, and goes on without the new one.
        """
        # Before, because `add` grants last: who asks between binding and grant is refused for good.
        granted = self.runs.identities["late"]["clientId"]
        await asyncio.to_thread(self.directory.grant, "default", granted)
        asking = asyncio.create_task(self.runs.outcomes("late", "late"))
        await self._refused("late")
        self.directory.azure.weather(f"identities={IMDS_CACHE}")
        await execute(self.place.plan, "default", "mine", LOOK)
        await asyncio.to_thread(add, self.place, "late", self.runs.identities["late"]["id"])
        return await asking

    async def _entra_said(self, name: str) -> list[int]:
        calls = await self.directory.entra_calls(self.directory.client_ids[name])
        return [call["status"] for call in calls]

    async def _refused(self, pod: str) -> None:
        """Return when NMI's log names the pod."""
        listed = self.place.run("podidentity", "sandbox", "get", "pods", "-n", "kube-system", *JSON)
        (nmi,) = [
            one["metadata"]["name"]
            for one in json.loads(listed)["items"]
            if one["metadata"]["name"].startswith("nmi-")
        ]
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


JSON = ("-o", "json")


def add(place: Sandbox, name: str, resource_id: str) -> None:
    """Let the pods labelled `name` use an identity."""
    place.add("default", name, "--identity-resource-id", resource_id)


async def prepared(place: Sandbox, azure: AzureOperator) -> Scenario:
    """Make what the SDKs ask for, and the pods in which they run."""
    place.run("podidentity", "enable")
    directory = await register(place, azure)
    await azure.create_group(GROUP)
    made = {name: await azure.create_identity(GROUP, name) for name in ("mine", "late", "denied")}
    made["system"] = await _machines_own(azure, place.plan.scale_set_id)
    await directory.app("spreading")
    for name, app in directory.apps.items():
        made[name] = {"clientId": app.client_id, "principalId": app.principal_id}
    made["annotated"] = {"clientId": directory.client_ids["annotated"]}
    reader = made["mine"]["principalId"]
    readers = [reader, made["system"]["principalId"], *directory.readers]
    await _opened(azure, readers, reader)
    add(place, "mine", made["mine"]["id"])
    _bind(directory, made)
    return Scenario(place, directory, Runs(place.plan, made))


async def _machines_own(azure: AzureOperator, scale_set: str) -> dict[str, str]:
    """Give the node's machine an identity of its own beside those of its pods."""
    kind = {"identity": {"type": "SystemAssigned, UserAssigned"}}
    await azure.arm("PATCH", scale_set, kind)
    principal = (await azure.arm("GET", scale_set))["identity"]["principalId"]
    known = await azure.graph("GET", f"servicePrincipals/{principal}")
    return {"clientId": known["appId"], "principalId": principal}


async def _opened(azure: AzureOperator, readers: list[str], writer: str) -> None:
    """Make a vault and an account that are open, and one of each that is closed."""
    for vault, who in (("sdks-open-kv", readers), ("sdks-closed-kv", [])):
        await azure.create_vault(GROUP, vault, who)
        await azure.put_secret(vault, "demo", SECRET)
    for account, writers in (("sdksopen", [writer]), ("sdksclosed", [])):
        await azure.create_account(GROUP, account, writers)
        await azure.create_container(account, "demo")


def _bind(directory: Directory, made: dict[str, dict[str, str]]) -> None:
    """Bind and permit, but `denied`, which nobody granted; start the pods."""
    denied = {"clientID": made["denied"]["clientId"], "resourceID": made["denied"]["id"]}
    directory.grant("default", made["spreading"]["clientId"])
    directory.grant("default", "system-assigned")
    directory.apply(
        *bound("system", label="system", type=0, resourceID="system-assigned"),
        *bound("denied", type=0, **denied),
        manifest(
            API,
            "AzurePodIdentityException",
            "excepted",
            "kube-system",
            spec={"podLabels": LABELS["excepted"]},
        ),
        *(_pod(name) for name in LABELS),
    )


def _pod(name: str) -> str:
    """Return a pod that has the SDKs."""
    mount = [{"name": "sdks", "mountPath": str(INSTALLED)}]
    spec: dict[str, Any] = {
        "containers": [{"name": "main", "image": "idle", "volumeMounts": mount}],
        "volumes": [{"name": "sdks", "hostPath": {"path": str(INSTALLED), "type": "Directory"}}],
    }
    if name == "annotated-sdks":
        spec["serviceAccountName"] = "annotated"
    namespace = "kube-system" if name == "excepted" else "default"
    return manifest("v1", "Pod", name, namespace, metadata={"labels": LABELS[name]}, spec=spec)
