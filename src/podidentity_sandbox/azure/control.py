"""Settings of the sandbox's Azure for tests and the demo, beyond those of Azure.

Plain HTTP on a Unix socket in the sandbox's folder, which only its owner can open:

    GET    /imds/requests      every request that reached IMDS
    DELETE /imds/requests      forget them
    PUT    /imds/fault         {"mode": ..., "seconds": 0, "times": null}; modes: azure.faults.Mode
    GET    /entra/requests     every request for a token that reached Entra, without its secrets
    DELETE /entra/requests     forget them
    PUT    /entra/fault        as above
    POST   /entra/keys         sign with new keys from now on; the old ones stay published
    DELETE /entra/keys         withdraw the old ones
    PUT    /entra/lifetime     {"seconds": 3600}  that an application's token lives
    PUT    /credentials/delay  {"seconds": 0}     until Entra knows a federated credential
    PUT    /arm/delay          {"seconds": 0.2}   until a scale set's machines have its change
    PUT    /roles/delay        {"seconds": 0}     until a role's assignment holds
    PUT    /imds/cache         {"seconds": 0}     a node's IMDS keeps to the identities that it saw
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.azure.entra.service import Entra
from podidentity_sandbox.azure.faults import Fault, Mode
from podidentity_sandbox.azure.imds.service import Imds
from podidentity_sandbox.azure.journal import Journal, NotSaved
from podidentity_sandbox.azure.messages import BadBody, Reply, Request
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuers

SOCKET = "azure.sock"
"""File name in the sandbox's folder."""
_DELAYS = {
    "/arm/delay": "arm_delay",
    "/roles/delay": "role_delay",
    "/credentials/delay": "credential_delay",
    "/imds/cache": "identity_cache",
}
"""The attribute of the world that each path sets."""


class ControlApi:
    """The control interface."""

    def __init__(
        self, world: World, imds: Imds, entra: Entra, issuers: Issuers, journal: Journal
    ) -> None:
        self._world = world
        self._issuers = issuers
        self._journal = journal
        self._watched: dict[str, Imds | Entra] = {"imds": imds, "entra": entra}

    async def handle(self, request: Request) -> Reply:
        """Answer one request on the Unix socket."""
        if request.path == "/entra/keys" and request.method in ("POST", "DELETE"):
            return self._change_keys(request.method)
        service, _, what = request.path.removeprefix("/").partition("/")
        if (watched := self._watched.get(service)) and what == "requests":
            if request.method == "GET":
                return Reply.json(watched.journal.entries())
            if request.method == "DELETE":
                watched.journal.clear()
                return Reply(status=204)
        if request.method == "PUT" and _is_setting(request.path):
            return self._set(request)
        return Reply.json({"error": f"no {request.method} {request.path} here"}, status=404)

    def _change_keys(self, method: str) -> Reply:
        for ring in self._issuers.rings.values():
            if method == "POST":
                ring.roll()
            else:
                ring.withdraw()
        try:
            self._journal.save()
        except NotSaved as error:
            return Reply.json({"error": str(error)}, status=500)
        return Reply(status=204)

    def _set(self, request: Request) -> Reply:
        try:
            body = request.json_object()
            seconds = _number(body, "seconds")
            if request.path in _DELAYS:
                setattr(self._world, _DELAYS[request.path], seconds)
            elif request.path == "/entra/lifetime":
                self._world.token_lifetime = int(seconds)
            else:
                mode = Mode(body.get("mode", "none"))
                times = int(_number(body, "times")) if body.get("times") is not None else None
                service = self._watched[request.path.split("/")[1]]
                service.fault = Fault(mode=mode, seconds=seconds, times=times)
        except (BadBody, ValueError) as error:
            return Reply.json({"error": str(error)}, status=400)
        return Reply(status=204)


def _is_setting(path: str) -> bool:
    return path in _DELAYS or path in {"/imds/fault", "/entra/fault", "/entra/lifetime"}


def _number(body: dict[str, Any], name: str) -> float:
    value = body.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{name} must be a number, 0 or more")
    return float(value)
