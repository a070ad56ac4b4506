"""What tests and the demo ask the sandbox's Azure beyond what Azure can be asked.

Plain HTTP on a Unix socket in the sandbox's folder, which only its owner can open:

    GET    /imds/requests      every request that reached IMDS
    DELETE /imds/requests      forget them
    GET    /entra/requests     every request for a token that reached Entra, without its secrets
    DELETE /entra/requests     forget them
    POST   /entra/keys         sign with new keys from now on; the old ones stay published
    DELETE /entra/keys         withdraw the old ones

How late it is and what fails is the weather's to say (podidentity_sandbox.weather).
"""

from __future__ import annotations

from podidentity_sandbox.azure.entra.service import Entra
from podidentity_sandbox.azure.imds import Imds
from podidentity_sandbox.azure.journal import Journal, NotSaved
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuers

SOCKET = "azure.sock"
"""File name in the sandbox's folder."""


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
        if request.path == "/entra/keys" and request.method in ("POST", "DELETE"):
            return self._change_keys(request.method)
        service, _, what = request.path.removeprefix("/").partition("/")
        if (watched := self._watched.get(service)) and what == "requests":
            if request.method == "GET":
                return Reply.json(list(watched.journal))
            if request.method == "DELETE":
                watched.journal.clear()
                return Reply(status=204)
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
