"""Microsoft Graph, as far as `az` asks it who a principal is: service principals, to be read.

An application reads the directory only where it was given `Application.Read.All`, which is no role
of Azure: the operator was, managed identities were not.

https://learn.microsoft.com/graph/api/resources/serviceprincipal, errors:
https://learn.microsoft.com/graph/errors
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.azure.messages import BadBody, Reply, Request
from podidentity_sandbox.azure.state import Principal, World
from podidentity_sandbox.azure.tokens import Issuer
from podidentity_sandbox.azure.verification import Fault, TokenRefused, Verifier

RESOURCE = "https://graph.microsoft.com"
HOST = "graph.microsoft.com"
_Admits = Callable[[Principal, str], bool]
_QUOTED = r"'(?P<value>[^']*)'"
_FILTERS: tuple[tuple[re.Pattern[str], _Admits], ...] = tuple(
    (re.compile(pattern.replace("QUOTED", _QUOTED), re.IGNORECASE), rule)
    for pattern, rule in (
        (
            r"servicePrincipalNames/any\(c:\s*c eq QUOTED\)",
            lambda who, text: text.lower() == who.app_id,
        ),
        (r"appId eq QUOTED", lambda who, text: text.lower() == who.app_id),
        (r"id eq QUOTED", lambda who, text: text.lower() == who.object_id),
        (r"displayName eq QUOTED", lambda who, text: text.lower() == who.name.lower()),
        (
            r"startswith\(displayName,\s*QUOTED\)",
            lambda who, text: who.name.lower().startswith(text.lower()),
        ),
    )
)
"""What `$filter` may ask of service principals, and whom each admits."""


class GraphError(Exception):
    """A refusal in Graph's envelope."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def reply(self, now: float) -> Reply:
        """Return the answer that says so."""
        tracking = str(uuid.uuid4())
        inner = {
            "date": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": tracking,
            "client-request-id": tracking,
        }
        error = {"code": self.code, "message": str(self), "innerError": inner}
        return Reply.json({"error": error}, status=self.status)


class Graph:
    """The directory."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._verifier = Verifier(
            keys=issuer.jwks, issuer=issuer.issuer, audiences=(RESOURCE, f"{RESOURCE}/")
        )

    def handle(self, request: Request) -> Reply:
        """Answer one request to graph.microsoft.com."""
        try:
            self._admit(request)
            return self._answer(request)
        except GraphError as error:
            return error.reply(self._world.clock())

    def _admit(self, request: Request) -> None:
        if not request.bearer:
            raise GraphError(401, "InvalidAuthenticationToken", "Access token is empty.")
        try:
            caller = self._verifier.verify(request.bearer, self._world.clock())
        except TokenRefused as error:
            raise GraphError(401, "InvalidAuthenticationToken", _words(error)) from error
        principal = self._world.principals.get(caller.object_id)
        if principal is None or not principal.reads_directory:
            message = "Insufficient privileges to complete the operation."
            raise GraphError(403, "Authorization_RequestDenied", message)

    def _answer(self, request: Request) -> Reply:
        path = request.path.rstrip("/")
        match request.method, path.split("/")[1:]:
            case "GET", ["v1.0", "servicePrincipals"]:
                return self._list(request.parameter("$filter"))
            case "GET", ["v1.0", "servicePrincipals", name]:
                return self._get(name)
            case "GET", ["v1.0", "users" | "groups"]:
                return _collection(path, [])  # the sandbox's directory has no people
            case "GET", ["v1.0", "users" | "groups", name]:
                raise _unknown(name)
            case "GET", ["v1.0", "me"]:
                message = "/me request is only valid with delegated authentication flow."
                raise GraphError(400, "BadRequest", message)
            case "POST", ["v1.0", "directoryObjects", "getByIds"]:
                return self._by_ids(request)
        raise GraphError(400, "BadRequest", f"The sandbox's Graph has no {request.method} {path}.")

    def _list(self, asked: str) -> Reply:
        for pattern, admits in _FILTERS:
            if match := pattern.fullmatch(asked.strip()):
                found = [p for p in self._world.principals.values() if admits(p, match["value"])]
                return _collection("servicePrincipals", [_json(one) for one in found])
        if asked:
            message = f"Unsupported or invalid query filter clause specified: {asked}."
            raise GraphError(400, "Request_UnsupportedQuery", message)
        everybody = self._world.principals.values()
        return _collection("servicePrincipals", [_json(one) for one in everybody])

    def _get(self, name: str) -> Reply:
        principal = self._world.principals.get(name.lower())
        if principal is None:
            raise _unknown(name)
        return Reply.json(_json(principal))

    def _by_ids(self, request: Request) -> Reply:
        try:
            ids = request.json_object().get("ids")
        except BadBody as error:
            raise GraphError(400, "BadRequest", str(error)) from error
        if not isinstance(ids, list):
            raise GraphError(400, "Request_BadRequest", "The property 'ids' is required.")
        found = [self._world.principals.get(str(one).lower()) for one in ids]
        kind = {"@odata.type": "#microsoft.graph.servicePrincipal"}
        return _collection("directoryObjects", [{**kind, **_json(one)} for one in found if one])


def _words(error: TokenRefused) -> str:
    if error.fault is Fault.EXPIRED:
        return "Lifetime validation failed, the token is expired."
    if error.fault is Fault.AUDIENCE:
        return "Access token validation failure. Invalid audience."
    return "Access token validation failure."


def _unknown(name: str) -> GraphError:
    return GraphError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{name}' does not exist or one of its queried reference-property objects are"
        " not present.",
    )


def _collection(kind: str, value: list[dict[str, Any]]) -> Reply:
    context = f"{RESOURCE}/v1.0/$metadata#{kind.rpartition('/')[2]}"
    return Reply.json({"@odata.context": context, "value": value})


def _json(principal: Principal) -> dict[str, Any]:
    return {
        "id": principal.object_id,
        "appId": principal.app_id,
        "displayName": principal.name,
        "appDisplayName": principal.name if principal.secret else None,
        "accountEnabled": True,
        "servicePrincipalNames": [principal.app_id],
        "servicePrincipalType": "Application" if principal.secret else "ManagedIdentity",
    }
