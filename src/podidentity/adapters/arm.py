"""Azure Resource Manager: looks identities up, attaches them to the nodes' machines, detaches them.

A change of a scale set takes 40 to 60 seconds. Azure does not notify: the client polls the
operation at the interval of Azure's Retry-After.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import httpx2

from podidentity.bounded_answers import TooLong, body_of, no_answer
from podidentity.core.authorities import PUBLIC, Cloud
from podidentity.core.hosts import Host, HostChange, HostIdentities
from podidentity.core.ports import Clock, Login
from podidentity.core.resources import ResourceId
from podidentity.wire import arm
from podidentity.wire.arm import ArmError, ManagedIdentity

LONGEST_OPERATION = 900.0
"""Timeout of an operation, in seconds, unless somebody names another."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds: no limit of Azure is longer than an hour, and MIC would wait for years."""
_LONGEST_PAUSE = 120.0
_PAUSE = 5.0
_TRIES = 4
_FAILED = {500, 502, 503, 504}
_MOST_PAGES = 1000
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_BROKEN = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)

_log = logging.getLogger(__name__)

Progress = Callable[[float], None]
"""Called with the seconds since an operation began, after each poll that finds it running."""


class _Answer(NamedTuple):
    """What came back, whole."""

    status_code: int
    headers: httpx2.Headers
    content: bytes

    @property
    def is_success(self) -> bool:
        return httpx2.codes.is_success(self.status_code)


ASYNC, LOCATION, STATE = "Azure-AsyncOperation", "Location", "provisioningState"
"""How the progress of a change is asked for; the first word of its operation."""


def _begun(answer: _Answer) -> str:
    """Return the operation that an accepted change names, "" for none."""
    targets = ((name, answer.headers.get(name)) for name in (ASYNC, LOCATION))
    return next((f"{name} {target}" for name, target in targets if target), "")


def _next(operation: str, answer: _Answer) -> str:
    """Return the operation to ask for next, "" after success; raise ArmError if it has failed.

    Each 202 may name a new Location, which replaces the one before.
    """
    if operation.startswith(ASYNC):
        return "" if arm.parse_operation(answer.content) else operation
    if answer.status_code == httpx2.codes.ACCEPTED:
        moved = answer.headers.get(LOCATION)
        return f"{LOCATION} {moved}" if moved else operation
    arm.parse_end(answer.content)
    return ""


class _Endpoint:
    """Sends requests to the resource manager of one cloud, as one user."""

    def __init__(
        self,
        login: Login,
        clock: Clock,
        *,
        transport: httpx2.AsyncBaseTransport,
        cloud: Cloud = PUBLIC,
        user_agent: str = "",
    ) -> None:
        """`transport` is the way there (`azure_transport.AzureTransport`)."""
        self._login = login
        self._clock = clock
        self._endpoint = httpx2.URL(cloud.resource_manager)
        self._scope = cloud.manager_scope
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(60, connect=10),
            trust_env=False,
            transport=transport,
            headers={"User-Agent": user_agent} if user_agent else None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def _send(
        self,
        method: str,
        url: httpx2.URL,
        body: Mapping[str, Any] | None,
        *,
        more: Mapping[str, str] = MappingProxyType({}),
        may_send: Callable[[], None] = lambda: None,
    ) -> _Answer:
        token = await self._login.token(self._scope)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **more}
        content = None if body is None else json.dumps(body).encode()
        may_send()
        asking = self._client.stream(method, url, headers=headers, content=content)
        async with asking as response:
            try:
                read = await body_of(response, arm.LONGEST_ANSWER)
            except TooLong as error:
                much = f"more than {arm.LONGEST_ANSWER >> 20} MiB"
                raise ArmError("BadAnswer", f"{url.host} sent {much}", sent=True) from error
            return _Answer(response.status_code, response.headers, read)

    def _pause(self, response: _Answer) -> float:
        """Return Azure's Retry-After in seconds; Azure sends seconds or a date."""
        text = response.headers.get("Retry-After", "")
        try:
            if text.isdecimal():
                told = float(text)
            else:
                told = max(0.0, parsedate_to_datetime(text).timestamp() - self._clock.time())
        except (ValueError, OverflowError):
            return _PAUSE
        return min(told, LONGEST_RETRY_AFTER)

    def _url(self, resource_id: str, version: str, *, only: str = "") -> httpx2.URL:
        """Return the URL of a resource, or of a list of those for which `only` holds."""
        query = {"api-version": version, **({"$filter": only} if only else {})}
        return self._endpoint.copy_with(path=resource_id, params=query)

    def _own(self, target: str) -> httpx2.URL:
        """Return the URL of an operation; raise ArmError unless ARM owns it: it gets the token."""
        try:
            url = self._endpoint.join(target)
        except httpx2.InvalidURL:
            raise ArmError(
                "BadAnswer", "Azure sent the address of an operation that is no URL"
            ) from None
        host = self._endpoint.host
        if url.scheme != self._endpoint.scheme or not f".{url.host}".endswith(f".{host}"):
            raise ArmError("BadAnswer", f"Azure sent the address of an operation at {url.host}")
        return url


class Arm(_Endpoint):
    """Azure Resource Manager for commands: it waits and tries again. An async context manager."""

    longest = LONGEST_OPERATION
    """Seconds after which it waits for no operation any more; Azure goes on with it."""

    async def identity(self, identity: ResourceId) -> ManagedIdentity:
        """Return the managed identity of that id; raise ArmError."""
        response = await self._ask("GET", self._url(identity.spelling, arm.IDENTITY_API))
        return arm.parse_identity(response.content)

    async def federated_credentials(self, identity: ResourceId) -> list[arm.FederatedCredential]:
        """Return what the managed identity's Entra trusts; raise ArmError."""
        place = f"{identity.spelling}/federatedIdentityCredentials"
        response = await self._ask("GET", self._url(place, arm.IDENTITY_API))
        return arm.parse_credentials(response.content)

    async def host(self, host: Host) -> HostIdentities:
        """Return the identities of `host`; raise ArmError."""
        response = await self._ask("GET", self._url(host.resource_id, arm.COMPUTE_API))
        return arm.parse_host(response.content)

    async def principals(self, host: Host) -> Mapping[str, str]:
        """Return the object ids of the identities of `host`, by client id; raise ArmError.

        "" stands for its system-assigned identity.
        """
        response = await self._ask("GET", self._url(host.resource_id, arm.COMPUTE_API))
        return arm.parse_principals(response.content)

    async def roles(self, scope: str, principal: str) -> list[str]:
        """Return the ids of the roles that a principal has at a scope; raise ArmError.

        Whether it has them there or above, by itself or by a group.
        """
        place = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
        only = f"atScope() and assignedTo('{principal}')"
        url = self._url(place, arm.AUTHORIZATION_API, only=only)
        found: list[str] = []
        for _ in range(_MOST_PAGES):
            page, following = arm.parse_assignments((await self._ask("GET", url)).content)
            found += page
            if not following:
                return found
            url = self._own(following)
        raise ArmError("BadAnswer", f"Azure's list of the roles at {scope} does not end")

    async def role(self, scope: str, role: str) -> tuple[arm.RolePermission, ...]:
        """Return what a role of that id grants, as it is seen at a scope; raise ArmError."""
        place = f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{role}"
        response = await self._ask("GET", self._url(place, arm.AUTHORIZATION_API))
        return arm.parse_role(response.content)

    async def attach(
        self, host: Host, identity: ResourceId, *, wait: bool = True, progress: Progress | None
    ) -> bool:
        """Attach `identity` to `host`; return whether that changed anything; raise ArmError.

        Without `wait` it returns when Azure has accepted the change.
        """
        return await self._change(
            host, lambda current: arm.attach(current, identity), progress, wait
        )

    async def detach(
        self, host: Host, *identities: ResourceId, wait: bool = True, progress: Progress | None
    ) -> bool:
        """Detach these from `host`; return whether that changed anything; raise ArmError."""
        return await self._change(
            host, lambda current: arm.detach(current, *identities), progress, wait
        )

    async def _change(
        self,
        host: Host,
        patch: Callable[[HostIdentities], Mapping[str, Any] | None],
        progress: Progress | None,
        wait: bool,
    ) -> bool:
        """Send the difference; read the host again and retry if it was changed meanwhile."""
        tries = 0
        while (body := patch(await self._settled(host, progress, wait=wait))) is not None:
            try:
                url = self._url(host.resource_id, arm.COMPUTE_API)
                accepted = await self._ask("PATCH", url, body)
                if wait:
                    await self._finish(accepted, progress)
            except ArmError as error:
                tries += 1
                if tries == _TRIES or not error.conflict:
                    raise
                _log.info("%s on %s; looking again", error.code, host)
                await self._clock.sleep(_PAUSE)
            else:
                return True
        return False

    async def _settled(
        self, host: Host, progress: Progress | None, *, wait: bool
    ) -> HostIdentities:
        """Return the host once no change of it is under way, its own or another client's.

        What it lists while it is updated the machines do not have yet, and a change sent then would
        preempt the other one. Without `wait` it is returned as it is. Raises ArmError for a host
        that is being deleted.
        """
        started = self._clock.monotonic()
        current = await self.host(host)
        while wait and current.state == "updating":
            elapsed = self._clock.monotonic() - started
            if elapsed > self.longest:
                raise ArmError("Timeout", f"Azure is not done after {elapsed:.0f} s")
            await self._clock.sleep(_PAUSE)
            if progress is not None:
                progress(self._clock.monotonic() - started)
            current = await self.host(host)
        if current.being_deleted:
            raise ArmError(arm.BEING_DELETED, "Azure is deleting it")
        return current

    async def _finish(self, accepted: _Answer, progress: Progress | None) -> None:
        """Return when the accepted operation has succeeded; raise ArmError."""
        started = self._clock.monotonic()
        operation, answer = _begun(accepted), accepted
        while operation:
            elapsed = self._clock.monotonic() - started
            if elapsed > self.longest:
                raise ArmError("Timeout", f"Azure is not done after {elapsed:.0f} s")
            await self._clock.sleep(min(self._pause(answer), _LONGEST_PAUSE))
            answer = await self._ask("GET", self._own(operation.partition(" ")[2]))
            operation = _next(operation, answer)
            if operation and progress is not None:
                progress(self._clock.monotonic() - started)

    async def _ask(
        self, method: str, url: httpx2.URL, body: Mapping[str, Any] | None = None
    ) -> _Answer:
        """Send one request; retry it if Azure asks for a short pause, or fails.

        Each request may be sent twice: a PATCH names the identities to add and those to remove.
        """
        for left in reversed(range(_TRIES)):
            try:
                response = await self._send(method, url, body)
            except (httpx2.HTTPError, OSError) as error:
                if left and isinstance(error, _BROKEN):
                    await self._clock.sleep(_PAUSE)
                    continue
                words = f"{url.host} cannot be asked: {no_answer(error)}"
                raise ArmError("Unreachable", words) from error
            if response.is_success:
                break
            pause = self._pause(response)
            throttled = response.status_code == 429 and "Retry-After" in response.headers
            again = throttled or response.status_code in _FAILED
            if not (again and left and pause <= _LONGEST_PAUSE):
                raise arm.parse_error(response.content, response.status_code)
            await self._clock.sleep(pause)
        return response


class ArmCalls(_Endpoint):
    """Azure Resource Manager for the controller: one request each, and no other try.

    All raise ArmError. An async context manager.
    """

    async def read(self, host: Host) -> HostIdentities:
        answer = await self._once("GET", self._url(host.resource_id, arm.COMPUTE_API))
        return arm.parse_host(answer.content, host)

    async def client_of(self, identity: str) -> str:
        """Return the client id of the managed identity with that ARM id, in lower case."""
        answer = await self._once("GET", self._url(identity, arm.IDENTITY_API))
        return str(arm.parse_identity(answer.content).client_id)

    async def hosts(
        self, subscription: str, group: str, *, scale_sets: bool
    ) -> Mapping[Host, HostIdentities]:
        """Return all scale sets, or all virtual machines, of a resource group; some requests."""
        kind = "virtualMachineScaleSets" if scale_sets else "virtualMachines"
        path = f"/subscriptions/{subscription}/resourceGroups/{group}"
        url = self._url(f"{path}/providers/Microsoft.Compute/{kind}", arm.COMPUTE_API)
        found: dict[Host, HostIdentities] = {}
        for _ in range(_MOST_PAGES):
            page, following = arm.parse_host_list((await self._once("GET", url)).content)
            found |= page
            if not following:
                return found
            url = self._own(following)
        raise ArmError("BadAnswer", f"Azure's list of {kind} in {group} does not end")

    async def change(
        self,
        host: Host,
        change: HostChange,
        etag: str = "",
        *,
        may_send: Callable[[], None] = lambda: None,
    ) -> tuple[str, float]:
        """Ask for a change; return by which operation its progress is asked for, and when.

        "" where it is done. `may_send` raises what keeps the request from being sent, at the last
        moment: to sign in may have taken a while.
        """
        answer = await self._once(
            "PATCH",
            self._url(host.resource_id, arm.COMPUTE_API),
            arm.render_change(change),
            more={"If-Match": etag} if etag else {},
            may_send=may_send,
        )
        if operation := _begun(answer):
            return operation, self._told(answer)
        # Some versions of Azure name no operation, and show the state alone.
        updating = arm.parse_host(answer.content, host).state == "updating"
        return (STATE if updating else ""), self._told(answer)

    async def progress(self, host: Host, operation: str) -> tuple[str, float]:
        """Return the operation to ask for next, "" if done; in how many seconds, 0 if not said."""
        if operation == STATE:
            state = (await self.read(host)).state
            if state == "failed":
                raise ArmError("Failed", "Azure says that the change of the host has failed")
            return (STATE if state == "updating" else ""), 0.0
        answer = await self._once("GET", self._own(operation.partition(" ")[2]))
        return _next(operation, answer), self._told(answer)

    async def _once(
        self,
        method: str,
        url: httpx2.URL,
        body: Mapping[str, Any] | None = None,
        *,
        more: Mapping[str, str] = MappingProxyType({}),
        may_send: Callable[[], None] = lambda: None,
    ) -> _Answer:
        try:
            answer = await self._send(method, url, body, more=more, may_send=may_send)
        except (httpx2.HTTPError, OSError) as error:
            raise ArmError(
                "Unreachable",
                f"{url.host} cannot be asked: {no_answer(error)}",
                sent=not isinstance(error, _NOT_SENT),
            ) from error
        if answer.is_success:
            return answer
        raise arm.parse_error(answer.content, answer.status_code, self._told(answer))

    def _told(self, response: _Answer) -> float:
        """Return Azure's Retry-After in seconds, 0 without one."""
        return self._pause(response) if "Retry-After" in response.headers else 0.0
