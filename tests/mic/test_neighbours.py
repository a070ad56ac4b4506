"""Each call at real sockets that answer well, badly and never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from podidentity.adapters.arm import LONGEST_RETRY_AFTER, ArmCalls
from podidentity.adapters.azure_transport import AzureTransport
from podidentity.adapters.kube import Kube
from podidentity.core.authorities import PUBLIC
from podidentity.core.budgets import BUDGETS, Budget
from podidentity.core.decision import Use
from podidentity.core.hosts import Host, HostChange, HostIdentities
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.core.resources import Assignment, ObjectRef
from podidentity.mic.calls import (
    WRITES,
    About,
    Accepted,
    Action,
    AskPermission,
    Condition,
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
    StoredRecord,
    TellEvent,
    UpdateRecord,
    WriteCondition,
    WriteLedger,
)
from podidentity.mic.neighbours import Neighbours, NotLeading, arm_failure, kube_failure
from podidentity.mic.objects import Live, parse_live, render_record
from podidentity.wire.arm import ArmError
from podidentity.wire.kube import KubeError
from podidentity.wire.ledgers import ledger_name, render_ledger
from tests.adapters.scripted import (
    Conversation,
    Script,
    Turn,
    answers,
    cuts,
    hangs,
    scripted,
)
from tests.fakes import CLIENT, OTHER_CLIENT, RESOURCE_ID, FakeClock

HOST = Host.parse(
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool"
)
ID = (
    "/subscriptions/S/resourceGroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/a"
)
CHANGE = HostChange(attach=(ID,), user=True)
PATCH = PatchHost(HOST, CHANGE, "")
REF = ObjectRef("shop", "r")


def host(**more: Any) -> dict[str, Any]:
    block = {"type": "UserAssigned", "userAssignedIdentities": {ID: {"clientId": CLIENT}}}
    properties = {"provisioningState": "Succeeded", **more.pop("properties", {})}
    return {"id": HOST.resource_id, "identity": block, "properties": properties, **more}


def live(about: About, spec: dict[str, Any], name: str) -> Live:
    meta = {"name": name, "namespace": "shop", "uid": f"u-{name}", "generation": 2}
    return parse_live(json.dumps({"metadata": meta, "spec": spec}).encode(), about)


IDENTITY = live(About.IDENTITY, {"clientID": CLIENT, "resourceID": RESOURCE_ID}, "orders")
BINDING = live(About.BINDING, {"azureIdentity": "orders", "selector": "s"}, "b")
RECORD = Record(
    ref=REF,
    pod=ObjectRef("shop", "p"),
    identity=IDENTITY.ref,
    binding=BINDING.ref,
    node="n1",
    state=Assignment.ASSIGNED,
    identity_revision=IDENTITY.revision,
    binding_revision=BINDING.revision,
)


def stored(**meta: Any) -> dict[str, Any]:
    body = render_record(RECORD, IDENTITY, BINDING)
    body["metadata"] |= {"uid": "u", "resourceVersion": "9", **meta}
    return body


class Objects:
    """The two objects, unless a test takes them away."""

    def __init__(self) -> None:
        self.known = {IDENTITY.ref: IDENTITY, BINDING.ref: BINDING}

    def live(self, about: About, ref: ObjectRef) -> Live | None:
        del about
        return self.known.get(ref)

    certain = True


class Login:
    def __init__(self) -> None:
        self.asked = 0

    async def token(self, scope: str) -> str:
        assert scope.endswith("/.default")
        self.asked += 1
        return "t0ken"


class Scene:
    def __init__(self, script: Script, arm: ArmCalls, kube: Kube, seconds: float) -> None:
        self.script, self.objects = script, Objects()
        self.leads, self.rejected = True, 0
        self.clock = FakeClock()
        self.neighbours = Neighbours(
            arm,
            kube,
            self.objects,
            self.clock,
            namespace="kube-system",
            me="mic-1",
            may_write=self._may_write,
            rejected=self._reject,
            seconds=seconds,
        )

    def _may_write(self) -> None:
        if not self.leads:
            raise NotLeading

    def _reject(self) -> None:
        self.rejected += 1

    async def do(self, action: Action) -> Result:
        return await self.neighbours.do(action, writes=isinstance(action, WRITES))

    async def failure(self, action: Action) -> Failure:
        result = await self.do(action)
        assert isinstance(result, Failure), result
        return result


@asynccontextmanager
async def place(*turns: Turn, seconds: float = 60) -> AsyncIterator[Scene]:
    """Both neighbours are one server, which answers by these turns."""
    async with scripted(*turns) as script:
        cloud = replace(PUBLIC, resource_manager=script.url, resource_manager_audience="https://a")
        client = httpx2.AsyncClient(base_url=script.url, trust_env=False, timeout=60)
        kube = Kube(client, patience=0)
        try:
            async with ArmCalls(
                Login(), FakeClock(), cloud=cloud, transport=AzureTransport()
            ) as arm:
                yield Scene(script, arm, kube, seconds)
        finally:
            await kube.close()


def refuses(status: int, code: str, message: str = "no", more: str = "") -> Turn:
    return answers({"error": {"code": code, "message": message}}, status=status, more=more)


def status(code: int, reason: str, message: str = "no") -> Turn:
    return answers({"kind": "Status", "code": code, "reason": reason, "message": message}, code)


# Azure


async def test_an_answer_without_an_end_is_given_up_before_it_fills_the_memory() -> None:
    async def without_end(conversation: Conversation) -> None:
        await conversation.begin()
        with suppress(OSError):  # the client has left
            while True:
                await conversation.chunk(bytes(1 << 20))

    async with place(without_end) as scene:
        failure = await scene.failure(ReadHost(HOST))
    assert "sent more than 32 MiB" in failure.message


async def test_a_host_is_read_with_one_request() -> None:
    async with place(answers(host(etag="7"))) as scene:
        found = await scene.do(ReadHost(HOST))
        assert found == HostIdentities(
            state="succeeded",
            user={ID.lower(): ID},
            clients={ID.lower(): CLIENT},
            etag="7",
        )
        (asked,) = scene.script.asked
        assert (asked.method, asked.path) == ("GET", HOST.resource_id)
        assert "Bearer t0ken" in asked.head


async def test_a_change_is_one_patch_with_the_difference_and_names_its_operation() -> None:
    more = "Azure-AsyncOperation: /operations/1\r\nRetry-After: 10\r\n"
    async with place(answers(host(), 202, more)) as scene:
        found = await scene.do(PatchHost(HOST, CHANGE, '"7"'))
        assert found == Accepted("Azure-AsyncOperation /operations/1", 10.0)
        (asked,) = scene.script.asked
        block = {"type": "UserAssigned", "userAssignedIdentities": {ID: {}}}
        assert json.loads(asked.body) == {"identity": block}
        assert 'if-match: "7"' in asked.head.lower()


async def test_a_change_without_an_operation_is_done_when_the_host_is_not_updating() -> None:
    updating = host(properties={"provisioningState": "Updating"})
    async with place(answers(host()), answers(updating)) as scene:
        assert await scene.do(PATCH) == Accepted()
        assert await scene.do(PATCH) == Accepted("provisioningState")


async def test_the_progress_of_each_kind_of_operation_is_asked_for() -> None:
    updating = host(properties={"provisioningState": "Updating"})
    turns = (
        answers({"status": "InProgress"}, more="Retry-After: 4\r\n"),
        answers({"status": "Succeeded"}),
        answers(b"", 202),
        answers(b"", 202, more="Location: /operations/2\r\n"),
        answers(b"", 200),
        answers(b"null", 200),
        answers(updating),
        answers(host()),
    )
    async with place(*turns) as scene:
        asynchronous = PollOperation(HOST, "Azure-AsyncOperation /operations/1")
        assert await scene.do(asynchronous) == Progress(False, 4.0, asynchronous.operation)
        assert await scene.do(asynchronous) == Progress(done=True)
        location = PollOperation(HOST, "Location /operations/1")
        assert await scene.do(location) == Progress(False, operation=location.operation)
        assert await scene.do(location) == Progress(False, operation="Location /operations/2")
        for _ in ("nothing", "null"):
            assert await scene.do(location) == Progress(done=True)
        state = PollOperation(HOST, "provisioningState")
        assert await scene.do(state) == Progress(False, operation="provisioningState")
        assert await scene.do(state) == Progress(done=True)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ({"status": "Canceled"}, Fault.PREEMPTED),
        ({"status": "Failed", "error": {"code": "OperationPreempted"}}, Fault.PREEMPTED),
        ({"status": "Failed", "error": {"code": "Conflict"}}, Fault.CONFLICT),
        ({"status": "Failed", "error": {"code": "OperationNotAllowed"}}, Fault.CONFLICT),
        ({"status": "Failed", "error": {"code": "InternalExecutionError"}}, Fault.FAILED),
        ({"status": "Failed"}, Fault.FAILED),
        ({}, Fault.FAILED),
    ],
    ids=[
        *("cancelled", "preempted", "a conflict", "another is under way", "an error"),
        *("no reason", "no operation"),
    ],
)
async def test_an_operation_that_fails_is_told_by_its_kind(
    operation: dict[str, Any], kind: Fault
) -> None:
    async with place(answers(operation)) as scene:
        poll = PollOperation(HOST, "Azure-AsyncOperation /operations/1")
        assert (await scene.failure(poll)).kind is kind


CLAIMED = replace(CHANGE, clients=((ID, frozenset({CLIENT})),))


def managed(client: str) -> Turn:
    return answers({"id": ID, "properties": {"clientId": client, "principalId": OTHER_CLIENT}})


ERROR = {"error": {"code": "InternalServerError", "message": "no"}}
NO_ANSWERS = {
    "half JSON": b'{"id":',
    "a list": b"[]",
    "text": b"<html>",
    "an error": ERROR,
    "an error without the envelope": ERROR["error"],
    "an error beside what was asked for": {**host(), "status": "Succeeded", "value": [], **ERROR},
}
NOTHING = {"nothing": b"", "an empty object": b"{}", "another": {"id": "/other"}}
ASKED: dict[str, Action] = {
    "ReadHost": ReadHost(HOST),
    "PatchHost": PATCH,
    "PollOperation": PollOperation(HOST, "Azure-AsyncOperation /operations/1"),
    "its host": PollOperation(HOST, "provisioningState"),
    "ListHosts": ListHosts("s", "g", scale_sets=True),
    "a client id": PatchHost(HOST, CLAIMED, ""),
}
LOCATION = PollOperation(HOST, "Location /operations/1")


@pytest.mark.parametrize(
    ("action", "body"),
    [
        *(
            pytest.param(action, body, id=f"{name}: {what}")
            for name, action in ASKED.items()
            for what, body in {**NO_ANSWERS, **NOTHING}.items()
        ),
        # That no change is under way any more is told by 200 alone, whatever it shows.
        *(
            pytest.param(LOCATION, body, id=f"a location: {what}")
            for what, body in NO_ANSWERS.items()
        ),
    ],
)
async def test_what_is_no_answer_is_a_failure_though_it_says_200(
    action: Action, body: bytes | dict[str, Any]
) -> None:
    """Else a host has no identities, or a change is done, of which nobody has said so."""
    async with place(answers(body)) as scene:
        failure = await scene.failure(action)
        assert (failure.kind, bool(failure.message)) == (Fault.FAILED, True)
        assert len(scene.script.asked) == 1


async def test_an_identity_is_attached_where_its_client_id_is_the_permitted_one() -> None:
    async with place(managed(CLIENT.upper()), answers(host())) as scene:
        for _ in range(2):
            assert isinstance(await scene.do(PatchHost(HOST, CLAIMED, "")), Accepted)
        assert [each.method for each in scene.script.asked] == ["GET", "PATCH", "PATCH"]


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (managed(OTHER_CLIENT), "has another client id than spec.clientID"),
        (refuses(404, "ResourceNotFound"), "ResourceNotFound"),
        (refuses(403, "AuthorizationFailed"), "AuthorizationFailed"),
    ],
    ids=["another's", "not there", "may not be read"],
)
async def test_an_arm_id_beside_anothers_client_id_attaches_nothing(turn: Turn, says: str) -> None:
    """Else whoever may use one identity has MIC attach any other to a machine."""
    async with place(turn) as scene:
        for _ in range(2):
            failure = await scene.failure(PatchHost(HOST, CLAIMED, ""))
            assert (failure.kind, failure.bad) == (Fault.BAD_IDENTITIES, (ID.lower(),))
            assert says in f"{failure.code}: {failure.message}"
            assert OTHER_CLIENT not in failure.message
        assert [each.method for each in scene.script.asked] == ["GET", "GET"]


async def test_a_client_id_that_was_read_counts_for_ten_minutes_and_for_itself_alone() -> None:
    """Else who may use one identity has MIC attach it for others to whom it was never given."""
    patch = PatchHost(HOST, CLAIMED, "")
    for_another = replace(CHANGE, clients=((ID, frozenset({OTHER_CLIENT})),))
    turns = (managed(CLIENT), answers(host()), managed(CLIENT), answers(host()))
    async with place(*turns, managed(CLIENT), answers(host())) as scene:
        scene.clock.advance(1_000)
        assert isinstance(await scene.do(patch), Accepted)
        failure = await scene.failure(PatchHost(HOST, for_another, ""))
        assert (failure.kind, failure.bad) == (Fault.BAD_IDENTITIES, (ID.lower(),))
        scene.clock.advance(599)
        assert isinstance(await scene.do(patch), Accepted)
        scene.clock.advance(1)
        assert isinstance(await scene.do(patch), Accepted)
        asked = [each.method for each in scene.script.asked]
        assert asked == ["GET", "PATCH", "GET", "PATCH", "GET", "PATCH"]


async def test_what_is_remembered_of_client_ids_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podidentity.mic.neighbours._MOST_CLIENTS", 3)

    async def answer(request: Conversation) -> None:
        await (managed(CLIENT) if request.method == "GET" else answers(host()))(request)

    async with place(answer) as scene:
        kept = []
        for number in range(7):
            claims = ((f"{ID}{number}", frozenset({CLIENT})),)
            change = replace(CHANGE, clients=claims)
            assert isinstance(await scene.do(PatchHost(HOST, change, "")), Accepted)
            kept.append(len(scene.neighbours._clients))
        assert kept == [1, 2, 3, 1, 2, 3, 1]


async def test_the_client_ids_of_many_identities_are_read_ten_at_a_time() -> None:
    """150 of them, one after the other, would take longer than a call may."""
    ids = [f"{ID}{number}" for number in range(20)]
    claims = tuple((each, frozenset({CLIENT})) for each in ids)
    ten = asyncio.Barrier(10)

    async def answer(request: Conversation) -> None:
        if request.method == "GET":
            async with ten:
                await managed(CLIENT)(request)
        else:
            await answers(host())(request)

    async with place(answer) as scene:
        change = HostChange(attach=tuple(ids), user=True, clients=claims)
        assert isinstance(await scene.do(PatchHost(HOST, change, "")), Accepted)
        assert (len(scene.script.asked), scene.script.most_open) == (21, 10)


async def test_while_nobody_knows_whose_client_id_it_is_nothing_is_attached() -> None:
    async with place(refuses(429, "TooManyRequests", more="Retry-After: 7\r\n")) as scene:
        failure = await scene.failure(PatchHost(HOST, CLAIMED, ""))
        assert (failure.kind, failure.retry_after) == (Fault.THROTTLED, 7.0)
        assert [each.method for each in scene.script.asked] == ["GET"]


@pytest.mark.parametrize("place_of_it", ["https://example.com/operations/1", "https://[::x/"])
async def test_an_operation_elsewhere_does_not_get_the_token(place_of_it: str) -> None:
    async with place(answers({"status": "Succeeded"})) as scene:
        poll = PollOperation(HOST, f"Azure-AsyncOperation {place_of_it}")
        assert (await scene.failure(poll)).kind is Fault.FAILED
        assert scene.script.asked == []


@pytest.mark.parametrize("when", ["9" * 5000, "-1", "Mon, 1 Jan 2024 00:00:00 +" + "9" * 20])
async def test_a_time_that_is_none_is_no_reason_to_fail(when: str) -> None:
    async with place(answers(host(), more=f"Retry-After: {when}\r\n")) as scene:
        accepted = await scene.do(PATCH)
        assert isinstance(accepted, Accepted)
        assert accepted.after <= LONGEST_RETRY_AFTER


REFUSED = (
    "The client 'x' has permission to perform action 'Microsoft.Compute/virtualMachineScaleSets/"
    f"write' on scope '{HOST.resource_id}'; however, it does not have permission to perform action "
    "'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action' on the linked scope(s) "
    f"'{ID},{ID}.(2)' or the linked scope(s) are invalid."
)
NOT_FOUND = (
    f"Identity operation for resource '{HOST.resource_id}' failed with error 'Failed to perform "
    "resource identity operation. Status: 'BadRequest'. Response: "
    f'\'{{"error":{{"code":"BadRequest","message":"Resource \'{ID}\' was not found."}}}}\'.\''
)


@pytest.mark.parametrize(
    ("turn", "kind", "bad"),
    [
        (refuses(403, "AuthorizationFailed"), Fault.FORBIDDEN, ()),
        (refuses(403, "DenyAssignmentAuthorizationFailed"), Fault.DENIED, ()),
        (refuses(409, "ScopeLocked"), Fault.DENIED, ()),
        (
            refuses(403, "LinkedAuthorizationFailed", REFUSED),
            Fault.BAD_IDENTITIES,
            (ID.lower(), f"{ID}.(2)".lower()),
        ),
        (refuses(400, "FailedIdentityOperation", NOT_FOUND), Fault.BAD_IDENTITIES, (ID.lower(),)),
        (refuses(400, "FailedIdentityOperation", "something"), Fault.BAD_IDENTITIES, ()),
        (refuses(404, "ResourceNotFound"), Fault.NOT_FOUND, ()),
        (refuses(409, "Conflict"), Fault.CONFLICT, ()),
        (refuses(409, "OperationNotAllowed"), Fault.CONFLICT, ()),
        (refuses(412, "PreconditionFailed"), Fault.CONFLICT, ()),
        (refuses(400, "BadRequest"), Fault.INVALID, ()),
        (refuses(500, "InternalServerError"), Fault.FAILED, ()),
        (answers(b"<html>", 502), Fault.LOST, ()),
        (answers(b"", 504), Fault.LOST, ()),
        (answers(b"", 503), Fault.FAILED, ()),
        (cuts, Fault.LOST, ()),
    ],
    ids=[
        "no right",
        "a deny assignment",
        "a lock",
        "no right on two identities",
        "no such identity",
        "an identity that it does not name",
        "no such host",
        "a conflict",
        "an operation under way",
        "another version",
        "a wrong request",
        "an error",
        "a gateway",
        "a gateway's time-out",
        "down",
        "a broken connection",
    ],
)
async def test_a_change_that_azure_refuses_is_one_failure_and_no_second_try(
    turn: Turn, kind: Fault, bad: tuple[str, ...]
) -> None:
    async with place(turn) as scene:
        failure = await scene.failure(PATCH)
        assert (failure.kind, failure.bad) == (kind, bad)
        assert len(scene.script.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "OperationNotAllowed", "message": "too many"}},
        {"code": "OperationNotAllowed", "message": "too many"},
    ],
    ids=["wrapped", "bare"],
)
async def test_azures_wish_to_be_left_alone_is_told_in_seconds(body: dict[str, Any]) -> None:
    """Compute's answer lacks the wrapper."""
    async with place(answers(body, 429, "Retry-After: 1200\r\n")) as scene:
        failure = await scene.failure(PATCH)
        assert (failure.kind, failure.retry_after) == (Fault.THROTTLED, 1200.0)
        assert failure.message == "too many"


@pytest.mark.parametrize(
    ("code", "status_", "rejected"),
    [
        ("ExpiredAuthenticationToken", 401, 1),
        # A sign-in that failed has given no token.
        ("SignIn", 401, 0),
        ("AuthorizationFailed", 403, 0),
    ],
)
async def test_a_token_that_azure_does_not_take_is_forgotten(
    code: str, status_: int, rejected: int
) -> None:
    async with place(refuses(status_, code)) as scene:
        kind = (await scene.failure(ReadHost(HOST))).kind
        assert (kind is Fault.UNREACHABLE) is (status_ == 401)
        assert scene.rejected == rejected


@pytest.mark.parametrize(
    ("status_", "after", "read", "written"),
    [
        (503, 5.0, Fault.THROTTLED, Fault.THROTTLED),
        (503, 0.0, Fault.UNREACHABLE, Fault.FAILED),
        (500, 5.0, Fault.UNREACHABLE, Fault.FAILED),
        (504, 5.0, Fault.UNREACHABLE, Fault.LOST),
        (502, 0.0, Fault.UNREACHABLE, Fault.LOST),
        (418, 5.0, Fault.FAILED, Fault.FAILED),
        (302, 0.0, Fault.FAILED, Fault.FAILED),
    ],
)
def test_an_error_of_azure_says_of_a_change_less_than_of_a_read(
    status_: int, after: float, read: Fault, written: Fault
) -> None:
    error = ArmError("Code", "no", status=status_, retry_after=after)
    kinds = [arm_failure(error, writes=writes).kind for writes in (False, True)]
    assert kinds == [read, written]


@pytest.mark.parametrize(
    ("cause", "may_be_done"),
    [
        (httpx2.ReadError("reset"), True),
        (httpx2.ConnectError("refused"), False),
        (httpx2.ConnectTimeout("never"), False),
        (OSError("no such file"), False),
        (None, False),
    ],
)
def test_only_what_was_sent_to_the_api_server_may_be_done_though_no_answer_came(
    cause: Exception | None, *, may_be_done: bool
) -> None:
    error = KubeError("The API server cannot be asked.")
    error.__cause__ = cause
    assert kube_failure(error, writes=False).kind is Fault.UNREACHABLE
    written = kube_failure(error, writes=True).kind
    assert written is (Fault.LOST if may_be_done else Fault.UNREACHABLE)


@pytest.mark.parametrize(
    ("action", "kind"), [(PATCH, Fault.LOST), (ReadHost(HOST), Fault.UNREACHABLE)]
)
async def test_an_answer_that_never_comes_ends_the_call(action: Action, kind: Fault) -> None:
    async with place(hangs, seconds=0.2) as scene:
        assert (await scene.failure(action)).kind is kind


async def test_where_nobody_listens_nothing_is_lost() -> None:
    async with place(answers(host())) as scene:
        scene.script.turns = []
        nowhere = replace(PUBLIC, resource_manager="http://127.0.0.1:1")
        async with ArmCalls(Login(), FakeClock(), cloud=nowhere, transport=AzureTransport()) as arm:
            with pytest.raises(ArmError) as told:
                await arm.change(HOST, CHANGE)
        assert arm_failure(told.value, writes=True).kind is Fault.UNREACHABLE


async def test_nothing_is_written_when_the_lease_has_ended() -> None:
    holds = Condition(holds=True, reason="r", message="m")
    actions: list[Action] = [
        PATCH,
        WriteLedger(Ledger(host=HOST), ""),
        CreateRecord(RECORD, 0),
        UpdateRecord(REF, RECORD, "u", "9", 0),
        DeleteRecord(REF, "u"),
        WriteCondition(About.IDENTITY, IDENTITY.ref, holds),
        TellEvent(About.BINDING, BINDING.ref, "Normal", "binding applied", "note"),
    ]
    async with place(answers(host())) as scene:
        scene.leads = False
        for action in actions:
            with pytest.raises(NotLeading):
                await scene.do(action)
        assert scene.script.asked == []


async def test_the_hosts_of_a_group_are_read_by_pages() -> None:
    other = Host.parse(f"{HOST.resource_id}2")
    async with place(hangs) as scene:
        following = f"{scene.script.url}/more?api-version=1"
        scene.script.turns = [
            answers({"value": [host(), {"id": "/x"}], "nextLink": following}),
            answers({"value": [host(id=other.resource_id)]}),
        ]
        found = await scene.do(ListHosts("s", "g", scale_sets=True))
        assert isinstance(found, HostList)
        assert set(found.hosts) == {HOST, other}
        first, more = [each.path for each in scene.script.asked]
        assert first.startswith("/subscriptions/s/resourceGroups/g/providers/")
        assert more == "/more"


# Ledgers

LEDGER = Ledger(host=HOST, attached={ID.lower(): LedgerEntry(ID, 1.0)})
LEDGERS = "/apis/aadpodidentity.k8s.io/v1/namespaces/kube-system/azureidentityledgers"


def ledger(version: str = "5", **more: Any) -> dict[str, Any]:
    body = render_ledger(LEDGER, "kube-system")
    body["metadata"]["resourceVersion"] = version
    return {**body, **more}


async def test_ledgers_are_listed_and_one_under_anothers_name_does_not_count() -> None:
    stranger = ledger("7")
    stranger["metadata"] = {**stranger["metadata"], "name": "mine"}
    broken = ledger("6", spec={"host": f"{HOST.resource_id}2", "attached": [{"id": "/x"}]})
    broken["metadata"] = {
        **broken["metadata"],
        "name": ledger_name(Host.parse(f"{HOST.resource_id}2")),
    }
    items = [ledger(), stranger, broken, {"metadata": {"name": "x"}}]
    async with place(answers({"metadata": {"resourceVersion": "9"}, "items": items})) as scene:
        found = await scene.do(ListLedgers())
        assert isinstance(found, LedgerList)
        assert found.ledgers[HOST] == StoredLedger(LEDGER, "5")
        lost = found.ledgers[Host.parse(f"{HOST.resource_id}2")]
        assert (lost.ledger, lost.version) == (None, "6")
        assert "must match" in lost.malformed
        assert len(found.ledgers) == 2


async def test_a_ledger_is_made_changed_at_its_version_and_deleted_with_its_host() -> None:
    turns = (answers(ledger()), answers(ledger("6")), answers({}))
    async with place(*turns) as scene:
        assert await scene.do(WriteLedger(LEDGER, "")) == StoredLedger(LEDGER, "5")
        assert await scene.do(WriteLedger(LEDGER, "5")) == StoredLedger(LEDGER, "6")
        assert await scene.do(WriteLedger(Ledger(host=HOST), "6", gone=True)) == StoredLedger(
            None, ""
        )
        made, changed, deleted = scene.script.asked
        assert (made.method, made.path) == ("POST", LEDGERS)
        assert (changed.method, changed.path) == ("PATCH", f"{LEDGERS}/{ledger_name(HOST)}")
        assert json.loads(changed.body)["metadata"]["resourceVersion"] == "5"
        assert json.loads(deleted.body) == {"preconditions": {"resourceVersion": "6"}}


async def test_a_ledger_that_is_not_there_is_none() -> None:
    async with place(status(404, "NotFound")) as scene:
        assert await scene.do(ReadLedger(HOST)) == StoredLedger(None, "")


# Records, conditions, events


async def test_a_record_is_created_with_its_status_in_one_request() -> None:
    async with place(answers(stored(), 201)) as scene:
        found = await scene.do(CreateRecord(RECORD, 0))
        assert isinstance(found, StoredRecord)
        assert found.record == RECORD
        (asked,) = scene.script.asked
        assert json.loads(asked.body)["status"]["status"] == "Assigned"


@pytest.mark.parametrize("malformed", [False, True])
@pytest.mark.parametrize("gone", [IDENTITY, BINDING])
async def test_a_record_of_an_identity_or_a_binding_that_is_gone_is_not_made(
    gone: Live, *, malformed: bool
) -> None:
    async with place(hangs) as scene:
        del scene.objects.known[gone.ref]
        if malformed:
            scene.objects.known[gone.ref] = replace(gone, copy=b"")
        for action in (CreateRecord(RECORD, 0), UpdateRecord(REF, RECORD, "u", "9", 0)):
            assert (await scene.failure(action)).kind is Fault.CONFLICT
        assert scene.script.asked == []


async def test_a_record_is_changed_and_deleted_at_its_uid_alone() -> None:
    async with place(answers(stored()), answers({})) as scene:
        await scene.do(UpdateRecord(REF, RECORD, "u", "9", 0))
        assert await scene.do(DeleteRecord(REF, "u")) is None
        changed, deleted = scene.script.asked
        assert json.loads(changed.body)[:2] == [
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "add", "path": "/metadata/resourceVersion", "value": "9"},
        ]
        assert "application/json-patch+json" in changed.head
        assert json.loads(deleted.body) == {"preconditions": {"uid": "u"}}


async def test_a_record_with_another_uid_is_a_conflict() -> None:
    # Kubernetes 1.37 says no more of a test that fails.
    said = "the server rejected our request due to an error in our request"
    async with place(status(422, "Invalid", said)) as scene:
        failure = await scene.failure(UpdateRecord(REF, RECORD, "u", "9", 0))
        assert failure.kind is Fault.CONFLICT
    async with place(status(422, "Invalid", "spec.pod: Required value")) as scene:
        failure = await scene.failure(UpdateRecord(REF, RECORD, "u", "9", 0))
        assert failure.kind is Fault.INVALID
    async with place(status(403, "Forbidden", "a test")) as scene:
        failure = await scene.failure(UpdateRecord(REF, RECORD, "u", "9", 0))
        assert failure.kind is Fault.FORBIDDEN


async def test_a_record_that_nothing_needs_is_freed_though_its_objects_are_gone() -> None:
    async with place(answers(stored())) as scene:
        scene.objects.known.clear()
        assert isinstance(await scene.do(UpdateRecord(REF, None, "u", "9", 0)), StoredRecord)
        (freed,) = scene.script.asked
        assert freed.method == "PATCH"


async def test_a_record_that_is_not_there_is_none() -> None:
    async with place(status(404, "NotFound"), answers(stored())) as scene:
        assert await scene.do(ReadRecord(REF)) is None
        assert isinstance(await scene.do(ReadRecord(REF)), StoredRecord)


@pytest.mark.parametrize(
    ("about", "plural"),
    [
        (About.IDENTITY, "azureidentities"),
        (About.BINDING, "azureidentitybindings"),
        (About.EXCEPTION, "azurepodidentityexceptions"),
    ],
)
async def test_the_condition_of_each_kind_goes_to_its_own_resource(
    about: About, plural: str
) -> None:
    condition = Condition(holds=True, reason="r", message="m")
    async with place(answers({})) as scene:
        assert await scene.do(WriteCondition(about, IDENTITY.ref, condition)) is None
        (written,) = scene.script.asked
        assert written.path.endswith(f"/namespaces/shop/{plural}/orders/status")


@pytest.mark.parametrize("code", [500, 502, 503, 504, 599])
async def test_a_read_that_a_server_fails_says_nothing_of_what_it_asked_for(code: int) -> None:
    async with place(refuses(code, "InternalServerError"), status(code, "InternalError")) as scene:
        assert (await scene.failure(ReadHost(HOST))).kind is Fault.UNREACHABLE
        assert (await scene.failure(ReadLedger(HOST))).kind is Fault.UNREACHABLE


async def test_a_condition_is_written_to_the_status_alone_and_an_event_beside_the_object() -> None:
    condition = WriteCondition(
        About.IDENTITY, IDENTITY.ref, Condition(holds=True, reason="r", message="m")
    )
    event = TellEvent(About.BINDING, BINDING.ref, "Normal", "binding applied", "note")
    async with place(answers({}), answers({})) as scene:
        assert await scene.do(condition) is None
        assert await scene.do(event) is None
        written, told = scene.script.asked
        assert written.path.endswith("/namespaces/shop/azureidentities/orders/status")
        assert json.loads(written.body)[-1]["path"].startswith("/status")
        assert "application/json-patch+json" in written.head
        assert told.path == "/api/v1/namespaces/shop/events"
        scene.objects.known.clear()
        assert (await scene.failure(condition)).kind is Fault.NOT_FOUND
        assert (await scene.failure(event)).kind is Fault.NOT_FOUND


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        (status(409, "AlreadyExists"), Fault.CONFLICT),
        (status(403, "Forbidden"), Fault.FORBIDDEN),
        (status(404, "NotFound"), Fault.NOT_FOUND),
        (status(422, "Invalid"), Fault.INVALID),
        (status(429, "TooManyRequests"), Fault.THROTTLED),
        (status(401, "Unauthorized"), Fault.UNREACHABLE),
        (status(500, "InternalError"), Fault.FAILED),
        (answers(b"", 504), Fault.LOST),
        (answers(b"{", 201), Fault.FAILED),
        (cuts, Fault.LOST),
    ],
    ids=[
        "it exists",
        "no right",
        "no namespace",
        "invalid",
        "overloaded",
        "unknown",
        "an error",
        "a gateway's time-out",
        "half an answer",
        "a broken connection",
    ],
)
async def test_what_the_api_server_refuses_is_one_failure_and_no_second_try(
    turn: Turn, kind: Fault
) -> None:
    async with place(turn) as scene:
        assert (await scene.failure(CreateRecord(RECORD, 0))).kind is kind
        assert len(scene.script.asked) == 1


async def test_the_api_servers_wish_to_be_left_alone_is_told_and_not_waited_for() -> None:
    body = {"kind": "Status", "code": 429, "reason": "TooManyRequests"}
    async with place(answers(body, 429, "Retry-After: 7\r\n")) as scene:
        assert (await scene.failure(CreateRecord(RECORD, 0))).retry_after == 7.0
        assert len(scene.script.asked) == 1


# What may be used


USE = Use(ObjectRef("shop", "default"), CLIENT)


@pytest.mark.parametrize(
    "action",
    [DeleteRecord(REF, "u"), UpdateRecord(REF, None, "u", "5", 0.0)],
    ids=["delete", "end"],
)
async def test_no_record_is_deleted_while_a_list_is_not_followed(action: Action) -> None:
    """As after etcd was put back: a record may be known again before its pod."""
    async with place(answers({})) as scene:
        scene.objects.certain = False
        assert (await scene.failure(action)).kind is Fault.UNREACHABLE
        assert scene.script.asked == []


async def test_nothing_is_detached_while_lists_are_read_anew() -> None:
    async with place(answers({}), answers({}, 202)) as scene:
        scene.objects.certain = False
        detach = HostChange(attach=(), detach=(RESOURCE_ID,), user=False)
        assert (await scene.failure(PatchHost(HOST, detach, ""))).kind is Fault.UNREACHABLE
        assert scene.script.asked == []
        await scene.do(PatchHost(HOST, HostChange(attach=(RESOURCE_ID,), user=True), ""))
        assert len(scene.script.asked) == 1


async def test_a_permission_is_one_review() -> None:
    unsure = {"status": {"allowed": False, "evaluationError": "its ClusterRole is not found"}}
    reviews: list[dict[str, Any]] = [
        {"status": {"allowed": True}},
        {"status": {"allowed": False}},
        unsure,
    ]
    async with place(*map(answers, reviews)) as scene:
        assert await scene.do(AskPermission(USE)) is True
        assert await scene.do(AskPermission(USE)) is False
        assert await scene.do(AskPermission(USE)) is False


@pytest.mark.parametrize(
    ("turn", "kind", "says"),
    [
        (status(403, "Forbidden", "RBAC is empty"), Fault.FORBIDDEN, "RBAC is empty"),
        (status(422, "Invalid", "its name"), Fault.INVALID, "its name"),
        (answers({}), Fault.FAILED, "no SubjectAccessReview"),
    ],
    ids=["refused", "invalid", "no review"],
)
async def test_what_is_no_decision_is_a_failure(turn: Turn, kind: Fault, says: str) -> None:
    async with place(turn) as scene:
        failure = await scene.failure(AskPermission(USE))
        assert (failure.kind, says in failure.message) == (kind, True)


async def test_what_is_in_use_is_listed_by_quorum_bindings_first() -> None:
    meta = {"namespace": "shop", "uid": "u"}
    binding = {"metadata": {**meta, "name": "b"}, "spec": {"azureIdentity": "o", "selector": "s"}}
    identity = {"metadata": {**meta, "name": "o"}, "spec": {"clientID": CLIENT}}
    pod = {"metadata": {**meta, "name": "p", "labels": {"aadpodidbinding": "s"}}}
    lists = [{"metadata": {}, "items": [each]} for each in (binding, identity, pod)]
    async with place(*map(answers, lists)) as scene:
        found = await scene.do(ListUse())
        assert isinstance(found, InUse)
        assert [each.ref.name for each in found.pods] == ["p"]
        first, second, third = scene.script.asked
        assert first.path.endswith("azureidentitybindings")
        assert second.path.endswith("azureidentities")
        assert "labelSelector=aadpodidbinding+in+%28s%29" in third.query
        assert not any("resourceVersion" in each.query for each in scene.script.asked)


@pytest.mark.parametrize(("bindings", "named"), [(0, False), (1, True), (50, True), (51, False)])
async def test_of_a_few_selectors_the_pods_are_listed_and_of_many_all_that_have_the_label(
    bindings: int, *, named: bool
) -> None:
    items = [
        {
            "metadata": {"namespace": "shop", "uid": "u", "name": f"b{number}"},
            "spec": {"azureIdentity": "o", "selector": f"s{number}"},
        }
        for number in range(bindings)
    ]
    lists = [{"metadata": {}, "items": each} for each in (items, [], [])]
    async with place(*map(answers, lists)) as scene:
        assert isinstance(await scene.do(ListUse()), InUse)
        query = scene.script.asked[-1].query
        assert ("labelSelector=aadpodidbinding+in+%28s0" in query) is named
        assert ("labelSelector=aadpodidbinding&" in f"{query}&") is not named


@pytest.mark.parametrize("kind", ["AzureIdentityBinding", "AzureIdentity", "Pod"])
async def test_of_a_namespace_over_its_budget_the_youngest_objects_are_unknown_before_a_detach(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant has no more of MIC's memory here than by the watches."""
    monkeypatch.setitem(BUDGETS, kind, Budget(64 << 10, 4_000))
    specs: dict[str, dict[str, Any]] = {
        "AzureIdentityBinding": {"azureIdentity": "o", "selector": "s"},
        "AzureIdentity": {"clientID": CLIENT},
        "Pod": {"nodeName": "n1"},
    }

    def listed(of: str) -> list[dict[str, Any]]:
        def one(place: str, number: int) -> dict[str, Any]:
            made = f"2026-01-01T00:00:{number:02}Z"
            meta = {"namespace": place, "name": f"x{number}", "creationTimestamp": made}
            return {"metadata": {**meta, "uid": "u"}, "spec": specs[of]}

        return [one("shop", each) for each in reversed(range(40))] + [one("other", 50)]

    lists = [{"metadata": {}, "items": listed(each)} for each in specs]
    async with place(*map(answers, lists)) as scene:
        found = await scene.do(ListUse())
        assert isinstance(found, InUse)
        query = scene.script.asked[-1].query
    assert found.unclear == {"shop"}
    assert ("labelSelector=aadpodidbinding&" in f"{query}&") is (kind == "AzureIdentityBinding")
    kept = dict(zip(specs, (found.bindings, found.identities, found.pods), strict=True))
    names = [each.ref.name for each in kept[kind] if each.ref.namespace == "shop"]
    if kind == "Pod":
        nameless = [each for each in found.pods if not each.ref.name]
        assert [(each.ref.namespace, each.node) for each in nameless] == [("shop", "n1")]
        names.remove("")
    assert 1 < len(names) < 10
    assert sorted(names) == [f"x{each}" for each in range(len(names))]
    assert all(len(each) >= 41 for of, each in kept.items() if of != kind)


@pytest.mark.parametrize("selector", ["t),app in (t", "t,t)", "two words", "-t", "t=t", "é"])
async def test_a_binding_that_no_pod_can_match_changes_nothing_about_which_pods_are_listed(
    selector: str,
) -> None:
    """Else a tenant hides the pods of others from MIC, or has Azure's changes wait for ever."""
    bindings = [
        {
            "metadata": {"namespace": "shop", "uid": "u", "name": name},
            "spec": {"azureIdentity": "o", "selector": each},
        }
        for name, each in (("a", "s"), ("b", selector))
    ]
    lists = [{"metadata": {}, "items": each} for each in (bindings, [], [])]
    async with place(*map(answers, lists)) as scene:
        assert isinstance(await scene.do(ListUse()), InUse)
        assert "labelSelector=aadpodidbinding+in+%28s%29&" in scene.script.asked[-1].query


@pytest.mark.parametrize("place_of_it", range(3), ids=["binding", "identity", "pod"])
async def test_nothing_is_detached_while_a_listed_object_cannot_be_read(place_of_it: int) -> None:
    """The object may need the identity, and the API server stores no object without metadata."""
    unreadable = {"metadata": {"namespace": "shop", "name": "x", "annotations": {"a": 1}}}
    items: list[list[object]] = [[], [], []]
    items[place_of_it] = [unreadable]
    lists = [{"metadata": {}, "items": each} for each in items]
    async with place(*map(answers, lists)) as scene:
        failure = await scene.failure(ListUse())
        assert failure.kind is Fault.FAILED
