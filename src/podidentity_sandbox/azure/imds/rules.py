"""Rules for requests to IMDS, checked before the machine is looked up: pure decisions.

Words marked (*) are those of the real service, seen in its documentation or in answers that people
reported; the rest are ours in its form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import IdentityBlock, UserAssignedIdentity

VERSIONS = (
    *("2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01"),
    *("2018-04-02", "2018-10-01", "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01"),
    *("2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01", "2020-06-01", "2020-07-15"),
    *("2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01"),
    *("2021-05-01", "2021-08-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13"),
    *("2023-07-01", "2023-11-15", "2024-03-15", "2024-07-17", "2025-04-07"),
)
FIRST_WITH_IDENTITY = "2018-02-01"
_SELECTORS = {
    "client_id": "client_id",
    "object_id": "object_id",
    "msi_res_id": "resource_id",
    # App Service's spelling: https://github.com/Azure/go-autorest sent it to IMDS, and was served.
    "mi_res_id": "resource_id",
}


class ImdsError(Exception):
    """A refusal; only the identity endpoints describe their errors."""

    def __init__(self, status: int, error: str, description: str = "") -> None:
        super().__init__(description or error)
        self.status = status
        self.error = error
        self.description = description

    def reply(self) -> Reply:
        """Return the answer that says so."""
        body: dict[str, object] = {"error": self.error}
        if self.description:
            body["error_description"] = self.description
        return Reply.json(body, status=self.status)


class BadVersion(ImdsError):
    """No api-version, or none that IMDS has; the answer names the newest ones."""

    def __init__(self) -> None:
        super().__init__(
            400,  # (*)
            "Bad request. api-version is invalid or was not specified in the request. For more"
            " information refer to aka.ms/azureimds",
        )

    def reply(self) -> Reply:
        """Return the answer that says so."""
        newest = list(reversed(VERSIONS[-3:]))
        return Reply.json({"error": self.error, "newest-versions": newest}, status=self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenQuery:
    """A token request that obeys the rules."""

    resource: str
    selector: str = ""
    """"" or client_id, object_id, resource_id."""
    value: str = ""
    bypass_cache: bool = False


def path_of(request: Request) -> str:
    """Return the path below /metadata, which alone is matched without case; raise ImdsError."""
    path = request.target.partition("?")[0]
    head, _, rest = path.removeprefix("/").partition("/")
    if not path.startswith("/") or head.lower() != "metadata":
        raise ImdsError(404, "Not found")
    return rest.rstrip("/")


def check_headers(request: Request, *, identity: bool) -> None:
    """Refuse a request that a proxy, a browser or a redirect could have made; raise ImdsError."""
    if "x-forwarded-for" in request.headers:
        text = "Requests with an X-Forwarded-For header are not accepted"
        raise ImdsError(400, "invalid_request", text) if identity else ImdsError(400, text)
    if request.headers.get("metadata", "").lower() != "true":
        text = "Required metadata header not specified"  # (*)
        if identity:
            raise ImdsError(400, "invalid_request", text)
        raise ImdsError(400, f"Bad request. {text} or not correct")


def check_version(request: Request, *, first: str = VERSIONS[0]) -> None:
    """Refuse an api-version that IMDS has not, or from before `first`; raise ImdsError."""
    version = request.parameter("api-version")
    if version not in VERSIONS or version < first:
        raise BadVersion


def check_identity_version(request: Request) -> None:
    """Refuse an api-version that has no managed identities; raise ImdsError."""
    if not request.parameter("api-version"):
        raise _invalid("Required query variable 'api-version' is missing")
    check_version(request, first=FIRST_WITH_IDENTITY)


def token_query(request: Request) -> TokenQuery:
    """Read the query of a token request; raise ImdsError."""
    names = [name.lower() for name, _ in request.query]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise _invalid(f"The query parameter '{repeated[0]}' is given more than once")
    resource = request.parameter("resource")
    if not resource:
        raise _invalid("Required query variable 'resource' is missing")  # (*)
    asked = [(kind, request.parameter(name)) for name, kind in _SELECTORS.items() if name in names]
    if len(asked) > 1:
        raise _invalid("Only one of client_id, object_id and msi_res_id may be specified")
    selector, value = asked[0] if asked else ("", "")
    if asked and not value:
        raise _invalid("The identifier of the identity is empty")
    bypass = request.parameter("bypass_cache").lower() == "true"
    return TokenQuery(resource=resource, selector=selector, value=value, bypass_cache=bypass)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenIdentity:
    """The identity that a token is for."""

    client_id: str
    object_id: str
    resource_id: str


def choose(
    ask: TokenQuery, block: IdentityBlock, *, alive: Sequence[UserAssignedIdentity], machine: str
) -> ChosenIdentity:
    """Return the identity that `ask` means among those of the machine; raise ImdsError.

    `alive` are the user-assigned identities that still exist, `machine` is the id of what holds
    the system-assigned one.
    """
    users = [
        ChosenIdentity(client_id=one.client_id, object_id=one.principal_id, resource_id=one.id)
        for one in block.user
        if one.principal_id in {other.principal_id for other in alive}
    ]
    system = [
        ChosenIdentity(client_id=one.app_id, object_id=one.object_id, resource_id=machine)
        for one in (block.system,)
        if one
    ]
    if ask.selector:
        matching = [
            one
            for one in (*system, *users)
            if getattr(one, ask.selector).lower() == ask.value.lower()
        ]
    else:
        matching = system or users
    if len(matching) > 1:
        raise _invalid(  # (*)
            "Multiple user assigned identities exist, please specify the clientId / resourceId of"
            " the identity in the token request"
        )
    if not matching:
        raise _invalid("Identity not found")  # (*)
    return matching[0]


def _invalid(description: str) -> ImdsError:
    return ImdsError(400, "invalid_request", description)
