"""Does the controller's calls at Azure and at the API server: one request each, and one result.

Nothing is tried again here and nothing waits: the controller knows all that is under way, and
decides what to ask again and when. So every error becomes a Failure of one of few kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import starmap
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import httpx2
import msgspec

from podidentity.adapters.arm import ArmCalls
from podidentity.adapters.kube import Kube
from podidentity.adapters.reflector import in_turns
from podidentity.core.budgets import Kept
from podidentity.core.hosts import Host
from podidentity.core.ports import Clock
from podidentity.core.resources import BINDING_LABEL, AzureIdentityBinding, ObjectRef, Pod
from podidentity.mic.calls import (
    About,
    Accepted,
    Action,
    AskPermission,
    CreateRecord,
    DeleteRecord,
    Failure,
    Fault,
    HostList,
    InUse,
    LedgerList,
    ListHosts,
    ListLedgers,
    ListUse,
    PatchHost,
    PollOperation,
    Progress,
    ReadHost,
    ReadLedger,
    ReadRecord,
    Record,
    Result,
    StoredLedger,
    TellEvent,
    UpdateRecord,
    WriteCondition,
    WriteLedger,
)
from podidentity.mic.objects import (
    Live,
    UnreadableObject,
    parse_record,
    render_condition,
    render_record,
    render_told,
    render_update,
)
from podidentity.wire.arm import ArmError, refused_identities
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_IDENTITY_LEDGERS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    EVENTS,
    PODS,
    KubeError,
    NotKubernetes,
    Resource,
    parse_object_version,
)
from podidentity.wire.ledgers import NotALedger, host_of, ledger_name, parse_ledger, render_ledger
from podidentity.wire.manifests import (
    BINDING_KIND,
    IDENTITY_KIND,
    parse_binding,
    parse_identity,
)
from podidentity.wire.pods import parse_pod
from podidentity.wire.reviews import PATH as REVIEWS
from podidentity.wire.reviews import InconclusiveReview, UnsureReview, parse_review, review

_Parsed = TypeVar("_Parsed")

SECONDS = 60.0
"""A call that takes longer has failed; nobody knows whether a change was made."""
_MOST_SELECTORS = 50
"""Of bindings in one label selector; with more of them all labelled pods are listed."""
_CLIENT_SECONDS, _MOST_CLIENTS = 600.0, 10_000
_PROOFS_AT_ONCE = 10
"""A change has up to 150 identities, and all of them have the time of one call."""
_NOT_PROVED = {403, 404}
"""Statuses of an identity that may not be read, or is not there."""
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_INVALID = 422
_AMBIGUOUS = {502, 504}
"""Statuses of a gateway that got no answer: what it passed on may be done."""
_PLURALS = {
    About.IDENTITY: AZURE_IDENTITIES,
    About.BINDING: AZURE_IDENTITY_BINDINGS,
    About.EXCEPTION: AZURE_POD_IDENTITY_EXCEPTIONS,
}


class NotLeading(Exception):
    """The lease ended before a write was sent."""


class Objects(Protocol):
    """The objects as they are now (`watches.ControllerWatches`)."""

    def live(self, about: About, ref: ObjectRef) -> Live | None: ...

    @property
    def certain(self) -> bool:
        """Whether each list is followed, and was read since one was in doubt."""


class Neighbours:
    """Azure and the API server."""

    def __init__(
        self,
        arm: ArmCalls,
        kube: Kube,
        objects: Objects,
        clock: Clock,
        *,
        namespace: str,
        me: str,
        may_write: Callable[[], None],
        rejected: Callable[[], None] = lambda: None,
        seconds: float = SECONDS,
    ) -> None:
        """`namespace` is MIC's own, `me` this replica.

        `may_write` raises NotLeading; `rejected` is called when Azure does not take the token.
        """
        self._arm = arm
        self._kube = kube
        self._objects = objects
        self._clock = clock
        self._namespace = namespace
        self._me = me
        self._may_write = may_write
        self._rejected = rejected
        self._seconds = seconds
        self._clients: dict[str, tuple[str, float]] = {}
        """Of identities that were attached by the right one, and until when that is known."""
        self._steps: Mapping[type, Callable[[Any], Awaitable[Result]]] = {
            ReadHost: lambda action: self._arm.read(action.host),
            ListHosts: self._list_hosts,
            PatchHost: self._patch_host,
            PollOperation: self._poll,
            ListLedgers: self._list_ledgers,
            ReadLedger: self._read_ledger,
            WriteLedger: self._write_ledger,
            ListUse: self._list_use,
            AskPermission: self._ask,
            CreateRecord: self._create_record,
            UpdateRecord: self._update_record,
            DeleteRecord: self._delete_record,
            ReadRecord: self._read_record,
            WriteCondition: self._write_condition,
            TellEvent: self._tell_event,
        }

    async def do(self, action: Action, *, writes: bool) -> Result:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._steps[type(action)](action)
        except TimeoutError:
            kind = Fault.LOST if writes else Fault.UNREACHABLE
            return Failure(kind=kind, message=f"no answer within {self._seconds:.0f} s")
        except ArmError as error:
            if error.status == httpx2.codes.UNAUTHORIZED and error.code != "SignIn":
                self._rejected()
            return arm_failure(error, writes=writes)
        except KubeError as error:
            return kube_failure(error, writes=writes)
        except (UnreadableObject, NotKubernetes, InconclusiveReview, ValueError) as error:
            return Failure(kind=Fault.FAILED, message=str(error))

    # Azure

    async def _list_hosts(self, action: ListHosts) -> Result:
        found = await self._arm.hosts(
            action.subscription, action.group, scale_sets=action.scale_sets
        )
        return HostList(found)

    async def _patch_host(self, action: PatchHost) -> Result:
        if action.change.detach and not self._objects.certain:
            return _NOT_CERTAIN
        bad = await self._unproved(action.change.clients)
        if bad:
            first = next(iter(bad.values()))
            return Failure(
                kind=Fault.BAD_IDENTITIES, message=first.message, code=first.code, bad=tuple(bad)
            )
        operation, after = await self._arm.change(
            action.host, action.change, action.etag, may_send=self._may_write
        )
        return Accepted(operation, after)

    async def _unproved(self, claimed: Iterable[tuple[str, frozenset[str]]]) -> dict[str, ArmError]:
        """Return why each that is not proved is not, by its id in lower case; raise ArmError."""
        places = asyncio.Semaphore(_PROOFS_AT_ONCE)

        async def prove(identity: str, clients: frozenset[str]) -> None:
            async with places:
                await self._prove(identity, clients)

        claims = dict(claimed)
        found = await asyncio.gather(*starmap(prove, claims.items()), return_exceptions=True)
        bad = {}
        for identity, error in zip(claims, found, strict=True):
            if isinstance(error, ArmError) and error.status in _NOT_PROVED:
                bad[identity.lower()] = error
            elif error is not None:
                raise error
        return bad

    async def _prove(self, identity: str, clients: frozenset[str]) -> None:
        """Raise ArmError unless the identity with this ARM id has one of the client ids."""
        now, (client, until) = self._clock.monotonic(), self._clients.get(identity, ("", 0.0))
        if now < until and client in clients:
            return
        client = await self._arm.client_of(identity)
        if client not in clients:
            raise ArmError(
                "OtherClientId",
                f"the identity with the ARM id {identity} has another client id than "
                "spec.clientID, for which the permission was given: correct spec.resourceID",
                status=httpx2.codes.NOT_FOUND,
            )
        if len(self._clients) >= _MOST_CLIENTS:
            self._clients.clear()
        self._clients[identity] = (client, now + _CLIENT_SECONDS)

    async def _poll(self, action: PollOperation) -> Result:
        operation, after = await self._arm.progress(action.host, action.operation)
        return Progress(not operation, after, operation)

    # Ledgers

    def _ledger_path(self, host: Host) -> str:
        return AZURE_IDENTITY_LEDGERS.path(self._namespace, ledger_name(host))

    async def _list_ledgers(self, _: ListLedgers) -> Result:
        page = await self._kube.list_all(AZURE_IDENTITY_LEDGERS.path(self._namespace))
        found: dict[Host, StoredLedger] = {}
        for item in page.items:
            host = host_of(item)
            if host is not None and ledger_name(host) == parse_object_version(item).ref.name:
                found[host] = _stored_ledger(bytes(item))
        return LedgerList(found)

    async def _read_ledger(self, action: ReadLedger) -> Result:
        raw = await self._get(self._ledger_path(action.host))
        return StoredLedger(None, "") if raw is None else _stored_ledger(raw)

    async def _get(self, path: str) -> bytes | None:
        try:
            return await self._kube.get(path)
        except KubeError as error:
            if not error.not_found:
                raise
            return None

    async def _write_ledger(self, action: WriteLedger) -> Result:
        self._may_write()
        ledger, version = action.ledger, action.version
        path = self._ledger_path(ledger.host)
        if action.gone:
            if version:
                await self._kube.delete(path, resourceVersion=version)
            return StoredLedger(None, "")
        body = render_ledger(ledger, self._namespace, version)
        if version:
            return _stored_ledger(await self._kube.merge(path, body))
        collection = AZURE_IDENTITY_LEDGERS.path(self._namespace)
        return _stored_ledger(await self._kube.create(collection, body))

    # Pods, and what may be used

    async def _list_use(self, _: ListUse) -> Result:
        """Read all without a resourceVersion: so a quorum answers, and no cache.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list
        """
        # An object that is left out for its size elsewhere counts here, as far as it is short.
        bindings, without = await self._listed(
            BINDING_KIND, AZURE_IDENTITY_BINDINGS, partial(parse_binding, any_size=True)
        )
        identities, left_out = await self._listed(
            IDENTITY_KIND, AZURE_IDENTITIES, partial(parse_identity, any_size=True)
        )
        selectors = {each.selector for each in bindings if isinstance(each, AzureIdentityBinding)}
        which = BINDING_LABEL
        if 0 < len(selectors) <= _MOST_SELECTORS and not without:
            which = f"{BINDING_LABEL} in ({','.join(sorted(selectors))})"
        pods, others = await self._listed("Pod", PODS, parse_pod, {"labelSelector": which})
        nameless = (Pod(ref=ObjectRef(place, ""), uid="", node=node) for place, node in others)
        unclear = frozenset(place for place, _ in without | left_out | others)
        return InUse((*pods, *nameless), identities, bindings, unclear)

    async def _listed(
        self,
        kind: str,
        resource: Resource,
        parse: Callable[[msgspec.Raw], _Parsed],
        params: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[tuple[_Parsed, ...], set[tuple[str, str]]]:
        """Return the objects of a kind, and namespace and node of those beyond a budget.

        Raises ValueError for an object that cannot be read: it may need an identity. A tenant can
        make none, because the parsers fail only for metadata that no API server stores.
        """
        pages, kept = self._kube.pages(resource.path(), params), Kept[_Parsed](kind)
        beyond = set()
        async with aclosing(pages):
            async for page in pages:
                async for _, item in in_turns(page):
                    meta = parse_object_version(item)
                    for each in kept.add(meta.ref, meta.created, parse(item)):
                        beyond.add((meta.ref.namespace, each.node if isinstance(each, Pod) else ""))
        return tuple(kept.values.values()), beyond

    async def _ask(self, action: AskPermission) -> Result:
        try:
            return parse_review(await self._kube.create(REVIEWS, review(action.use)))
        except UnsureReview:
            return False

    # Records

    async def _create_record(self, action: CreateRecord) -> Result:
        copies = self._copies(action.record)
        if copies is None:
            return _CHANGED
        body = render_record(action.record, *copies)
        self._may_write()
        path = AZURE_ASSIGNED_IDENTITIES.path(action.record.ref.namespace)
        return parse_record(await self._kube.create(path, body))

    async def _update_record(self, action: UpdateRecord) -> Result:
        copies = self._copies(action.record) if action.record else None
        if action.record and copies is None:
            return _CHANGED
        if action.record is None and not self._objects.certain:
            return _NOT_CERTAIN
        patch = render_update((action.uid, action.version), action.record, copies, action.odd)
        self._may_write()
        path = AZURE_ASSIGNED_IDENTITIES.path(*action.ref)
        answer = await self._patch(path, patch)
        return answer if isinstance(answer, Failure) else parse_record(answer)

    async def _patch(self, path: str, patch: Sequence[Mapping[str, Any]]) -> bytes | Failure:
        """Return the patched object; a test that fails is a conflict.

        The API server says nothing of the test. Other 422 answers name a field.
        """
        try:
            return await self._kube.patch(path, patch)
        except KubeError as error:
            if error.status == _INVALID and "error in our request" in error.said:
                return Failure(kind=Fault.CONFLICT, message=error.message, code=error.reason)
            raise

    async def _delete_record(self, action: DeleteRecord) -> Result:
        if not self._objects.certain:
            return _NOT_CERTAIN
        self._may_write()
        await self._kube.delete(AZURE_ASSIGNED_IDENTITIES.path(*action.ref), uid=action.uid)
        return None

    async def _read_record(self, action: ReadRecord) -> Result:
        raw = await self._get(AZURE_ASSIGNED_IDENTITIES.path(*action.ref))
        return None if raw is None else parse_record(raw)

    def _copies(self, record: Record) -> tuple[Live, Live] | None:
        identity = self._objects.live(About.IDENTITY, record.identity)
        binding = self._objects.live(About.BINDING, record.binding)
        if identity and binding and identity.copy and binding.copy:
            return identity, binding
        return None

    # What people read

    async def _write_condition(self, action: WriteCondition) -> Result:
        live = self._objects.live(action.about, action.ref)
        if live is None:
            return _GONE
        if not live.place:
            return None
        patch = render_condition(live, action.about, action.condition, self._clock.time())
        self._may_write()
        path = f"{_PLURALS[action.about].path(*action.ref)}/status"
        answer = await self._patch(path, patch)
        return answer if isinstance(answer, Failure) else None

    async def _tell_event(self, action: TellEvent) -> Result:
        live = self._objects.live(action.about, action.ref)
        if live is None:
            return _GONE
        body = render_told(action, live, self._clock.time(), self._me)
        self._may_write()
        await self._kube.create(EVENTS.path(action.ref.namespace), body)
        return None


_CHANGED = Failure(kind=Fault.CONFLICT, message="the identity or the binding is gone")
_NOT_CERTAIN = Failure(kind=Fault.UNREACHABLE, message="lists of the cluster are read anew")
_GONE = Failure(kind=Fault.NOT_FOUND, message="it is gone")


def _stored_ledger(raw: bytes) -> StoredLedger:
    version = parse_object_version(raw).resource_version
    try:
        return StoredLedger(parse_ledger(raw), version)
    except NotALedger as error:
        return StoredLedger(None, version, malformed=str(error))


# Whatever is wrong, as a Failure

_CANCELLED = {"canceled", "operationpreempted"}
_DENIED = {"denyassignmentauthorizationfailed", "scopelocked"}
_IDENTITIES = {"linkedauthorizationfailed", "failedidentityoperation"}


def arm_failure(error: ArmError, *, writes: bool) -> Failure:
    """Return what an error of Azure means; `writes`: of a request that changes something."""
    code = error.code.lower()
    bad = refused_identities(error.message) if code in _IDENTITIES else ()
    return Failure(
        kind=_arm_kind(error, code, writes=writes),
        message=error.message,
        code=error.code,
        retry_after=error.retry_after,
        bad=bad,
    )


def _arm_kind(error: ArmError, code: str, *, writes: bool) -> Fault:
    if code in _DENIED:
        return Fault.DENIED
    if code in _IDENTITIES:
        return Fault.BAD_IDENTITIES
    if error.status:
        return _by_status(error.status, writes=writes, asked_to_wait=bool(error.retry_after))
    if code in _CANCELLED:
        return Fault.PREEMPTED
    if code in {"conflict", "operationnotallowed"}:
        return Fault.CONFLICT
    if code == "unreachable":
        return Fault.LOST if writes and error.sent else Fault.UNREACHABLE
    return Fault.FAILED


def kube_failure(error: KubeError, *, writes: bool) -> Failure:
    """Return what an error of the API server means."""
    if error.unreachable:
        sent = isinstance(error.__cause__, httpx2.HTTPError) and not isinstance(
            error.__cause__, _NOT_SENT
        )
        kind = Fault.LOST if writes and sent else Fault.UNREACHABLE
    else:
        kind = _by_status(error.status, writes=writes, asked_to_wait=bool(error.retry_after))
    return Failure(
        kind=kind, message=error.message, code=error.reason, retry_after=float(error.retry_after)
    )


_BY_STATUS = {
    400: Fault.INVALID,
    401: Fault.UNREACHABLE,
    403: Fault.FORBIDDEN,
    404: Fault.NOT_FOUND,
    409: Fault.CONFLICT,
    410: Fault.NOT_FOUND,
    412: Fault.CONFLICT,
    422: Fault.INVALID,
    429: Fault.THROTTLED,
}


def _by_status(status: int, *, writes: bool, asked_to_wait: bool) -> Fault:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status in _AMBIGUOUS and writes:
        return Fault.LOST
    if status == 503 and asked_to_wait:
        return Fault.THROTTLED
    # A failed read says nothing about what it asks for, such as an operation.
    return Fault.UNREACHABLE if status >= 500 and not writes else Fault.FAILED
