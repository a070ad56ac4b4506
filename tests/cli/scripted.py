"""An ARM that does as it is told, and the time and the login to go with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2

from podidentity.adapters.arm import Arm
from podidentity.cli import azure_access
from podidentity.core.authorities import PUBLIC, Cloud

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000001"
IDENTITY = (
    f"{SUBSCRIPTION}/resourcegroups/shop/providers/Microsoft.ManagedIdentity"
    "/userAssignedIdentities/orders"
)
KUBELET = IDENTITY.replace("orders", "agentpool")
SCALE_SET = (
    f"{SUBSCRIPTION}/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool"
)
CLIENT = "11111111-1111-1111-1111-111111111111"
OBJECT = "22222222-2222-2222-2222-222222222222"
OPERATION = "https://management.azure.com/subscriptions/s/operations/1?api-version=x"


AZURE = azure_access.azure
"""The real one: `arm` puts a scripted one in its place."""


class TurnedClock:
    """A clock that stands still but for sleeps, and remembers these."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class SignedIn:
    """A login without a person."""

    def __init__(self) -> None:
        self.scopes: set[str] = set()

    async def token(self, scope: str) -> str:
        self.scopes.add(scope)
        return "secret-token"


class ScriptedArm:
    """Answers requests with what `script` returns, in turn; then by its own small world.

    The world: one identity, and machines with identity blocks that PATCH changes as ARM does.
    """

    def __init__(self, *hosts: str, attached: tuple[str, ...] = (KUBELET,)) -> None:
        self.blocks: dict[str, set[str]] = {host.lower(): set(attached) for host in hosts}
        self.requests: list[tuple[str, str, Any]] = []
        self.states: dict[str, list[str]] = {}
        """provisioningState of a host, by its id in lower case: at each GET one; the last stays."""
        self.script: list[Callable[[httpx2.Request], httpx2.Response | None]] = []
        self.clock = TurnedClock()
        self.login = SignedIn()

    def client(self, cloud: Cloud | None = PUBLIC) -> Arm:
        """Return a client of it, as `cli.azure_access.azure` does; any cloud's are answered."""
        if cloud is None or not cloud.resource_manager:
            return AZURE(cloud)
        transport = httpx2.MockTransport(self._answer)
        return Arm(self.login, self.clock, cloud=cloud, transport=transport)

    def patches(self) -> list[Any]:
        return [body for method, _, body in self.requests if method == "PATCH"]

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        assert request.headers["Authorization"] == "Bearer secret-token"
        body = json.loads(request.content) if request.content else None
        self.requests.append((request.method, str(request.url), body))
        if self.script:
            scripted = self.script.pop(0)(request)
            if scripted is not None:
                return scripted
        path = request.url.path.lower()
        if path == IDENTITY.lower():
            return httpx2.Response(200, json=identity())
        if path not in self.blocks:
            return error(404, "ResourceNotFound", f"The Resource '{path}' was not found.")
        if request.method == "PATCH":
            assert body is not None
            self._patch(self.blocks[path], body["identity"])
        return httpx2.Response(200, json=self._host(path))

    def _patch(self, attached: set[str], block: dict[str, Any]) -> None:
        if "UserAssigned" not in block["type"]:
            attached.clear()
        for each, value in block.get("userAssignedIdentities", {}).items():
            for same in [one for one in attached if one.lower() == each.lower()]:
                attached.remove(same)
            if value is not None:
                attached.add(each)

    def _host(self, path: str) -> dict[str, Any]:
        attached = {each: {"clientId": CLIENT} for each in self.blocks[path]}
        states = self.states.get(path, ["Succeeded"])
        state = states.pop(0) if len(states) > 1 else states[0]
        return {
            "identity": {"type": "UserAssigned", "userAssignedIdentities": attached},
            "properties": {"provisioningState": state},
        }


def identity() -> dict[str, Any]:
    return {"id": IDENTITY, "properties": {"clientId": CLIENT, "principalId": OBJECT}}


def error(status: int, code: str, message: str = "m", **headers: str) -> httpx2.Response:
    body = {"error": {"code": code, "message": message}}
    return httpx2.Response(status, json=body, headers=headers)


def answer(
    status: int, body: object = None, **headers: str
) -> Callable[[httpx2.Request], httpx2.Response | None]:
    """Return a line of a script: this answer, whatever the request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx2.Response(status, json=body, headers=named)


def pass_on(_: httpx2.Request) -> httpx2.Response | None:
    """A line of a script: answer by the world."""
    return None
