"""The front of ARM: token, quota, version, route, permission; then the handler.

Resource Manager throttles and authorizes before a request reaches the service whose resource it is:
https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling,
https://learn.microsoft.com/azure/role-based-access-control/overview#how-azure-rbac-determines-if-a-user-has-access-to-a-resource.
So a caller without a role learns nothing of what exists.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError
from podidentity_sandbox.azure.arm.hindrances import hindered
from podidentity_sandbox.azure.arm.quota import Quota
from podidentity_sandbox.azure.arm.routes import ROUTES, Route
from podidentity_sandbox.azure.arm.versions import check, type_of
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuer
from podidentity_sandbox.azure.verification import Caller, TokenFault, TokenRefused, Verifier

AUDIENCES = (
    "https://management.core.windows.net/",
    "https://management.core.windows.net",
    "https://management.azure.com/",
    "https://management.azure.com",
)


class Arm:
    """Azure Resource Manager."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._verifier = Verifier(keys=issuer.jwks, issuer=issuer.issuer, audiences=AUDIENCES)
        self._quota = Quota()

    def handle(self, request: Request) -> Reply:
        headers = {"x-ms-request-id": str(uuid.uuid4()), "Cache-Control": "no-cache"}
        try:
            reply = self._answer(request, headers)
        except ArmError as error:
            reply = error.reply()
        return replace(reply, headers={**headers, **reply.headers})

    def _answer(self, request: Request, headers: dict[str, str]) -> Reply:
        """Return the answer, and add to `headers` those that a refusal has as well."""
        version = request.parameter("api-version")
        if not version:
            message = "The api-version query parameter (?api-version=) is required for all requests"
            raise ArmError(400, "MissingApiVersionParameter", f"{message}.")
        now = self._world.clock()
        caller = self._authenticated(request, now)
        headers |= self._quota.take(request.method, request.path, caller.object_id, now)
        check(type_of(request.path), version, self._location(request))
        route, params = _found(request)
        call = ArmCall(world=self._world, request=request, caller=caller, params=params, now=now)
        if params.get("subscription", "").lower() not in ("", *self._world.plan.subscriptions):
            message = f"The subscription '{params['subscription']}' could not be found."
            raise ArmError(404, "SubscriptionNotFound", message)
        if route.action:
            call.require(route.action, params.get("scope", call.id))
        return hindered(call, route.action, route.handler)

    def _location(self, request: Request) -> str:
        """Return where the resource of the request is, or is to be; "" where nobody can know."""
        found = self._world.location_of(request.path.rstrip("/"))
        if found or request.method != "PUT":
            return found
        try:
            return str(request.json_object(ValueError).get("location", ""))
        except ValueError:
            return ""

    def _authenticated(self, request: Request, now: float) -> Caller:
        if not request.headers.get("authorization"):
            raise _unauthenticated(
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
                "The authentication failed because of missing 'Authorization' header.",
            )
        try:
            return self._verifier.verify(request.bearer, now)
        except TokenRefused as error:
            code, message = _words(error, now)
            raise _unauthenticated(code, message, message) from error


def _unauthenticated(code: str, message: str, description: str) -> ArmError:
    challenge = (
        'Bearer authorization_uri="https://login.microsoftonline.com/", error="invalid_token",'
        f' error_description="{description}"'
    )
    return ArmError(401, code, message, headers={"WWW-Authenticate": challenge})


def _words(error: TokenRefused, now: float) -> tuple[str, str]:
    if error.fault is TokenFault.EXPIRED:
        until = datetime.fromtimestamp(int(error.detail), UTC)
        current = datetime.fromtimestamp(now, UTC)
        return (
            "ExpiredAuthenticationToken",
            f"The access token expiry UTC time '{until:%m/%d/%Y %I:%M:%S %p}' is earlier than"
            f" current UTC time '{current:%m/%d/%Y %I:%M:%S %p}'.",
        )
    if error.fault is TokenFault.AUDIENCE:
        allowed = ",".join(f"'{audience}'" for audience in AUDIENCES)
        return (
            "InvalidAuthenticationToken",
            "The access token has been obtained for wrong audience or resource"
            f" '{error.detail}'. It should exactly match with one of the allowed audiences"
            f" {allowed}.",
        )
    if error.fault is TokenFault.ISSUER:
        return (
            "InvalidAuthenticationTokenTenant",
            f"The access token is from the wrong issuer '{error.detail}'.",
        )
    return "InvalidAuthenticationToken", "The access token is invalid."


def _found(request: Request) -> tuple[Route, dict[str, str]]:
    path = request.path.rstrip("/")
    methods: list[str] = []
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match and route.method == request.method:
            return route, match.groupdict()
        if match:
            methods.append(route.method)
    if methods:
        message = f"The requested resource does not support http method '{request.method}'."
        raise ArmError(
            405, "HttpMethodNotSupported", message, headers={"Allow": ", ".join(methods)}
        )
    message = f"The sandbox has no resource type at '{path}'."
    raise ArmError(404, "InvalidResourceType", message)
