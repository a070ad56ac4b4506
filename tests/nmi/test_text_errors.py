"""Errors by the archived project's words: https://github.com/Azure/aad-pod-identity pkg/nmi."""

from __future__ import annotations

import pytest

from podidentity.core import errors
from podidentity.core.errors import PodIdentityError, Refused, TokenRefused, TokenThrottled
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import ClientId, Tenant, TokenRequest
from podidentity.nmi.request.errors import NO_HEADER, NOT_LOCAL, old_answer, old_response
from tests.core.objects import principal
from tests.fakes import CLIENT, OTHER_CLIENT, VAULT, binding, pod
from tests.nmi.agents import agent
from tests.nmi.test_host_token import MOUNTS, PROVIDER, WORLD

ASKED = TokenRequest(resource=VAULT, client_id=ClientId.parse(CLIENT))


def refused(reason: Reason) -> Refused:
    return Refused(Refusal(reason=reason, message="because", next_step="Do."))


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (errors.InvalidRequest("other"), 400, "other"),
        (errors.UnknownCaller("no pod"), 500, "no pod"),
        (errors.NotReady("not yet"), 500, "not yet"),
        (errors.UnprovenCaller("forged"), 403, "forged"),
        (errors.TokenSourceDown("away"), 503, "away"),
        (TokenRefused("no", status=400, error="invalid_resource"), 403, "no"),
        (TokenRefused("nor", status=401, error="x"), 403, "nor"),
        (TokenThrottled("slow", retry_after=3), 403, "slow"),
        (refused(Reason.NO_LABEL), 404, "no azure identity found for request clientID "),
        (refused(Reason.NO_BINDING), 404, "no azure identity found for request clientID "),
        (refused(Reason.NOT_AMONG), 404, "no azure identity found for request clientID "),
        (refused(Reason.NOT_ASSIGNED), 404, "no azure identity found for request clientID "),
        (refused(Reason.NOT_PERMITTED), 403, "because"),
    ],
)
def test_an_error_has_the_old_status_and_text(
    error: PodIdentityError, status: int, text: str
) -> None:
    told = old_answer(error)
    assert (told.status, told.description[: len(text)], told.retry_after) == (status, text, 0)


NEW = {
    Reason.NOT_PERMITTED,
    Reason.HOST_NETWORK,
    Reason.POD_ENDED,
    Reason.MADE_BY_PROXY,
    Reason.ADDRESS_CONTESTED,
    Reason.RUNTIME_CLASS,
    Reason.NOT_A_PROVIDER,
    Reason.NO_CSI_VOLUME,
}


@pytest.mark.parametrize("reason", Reason)
def test_only_what_the_archived_project_did_not_know_keeps_its_status(reason: Reason) -> None:
    told = old_answer(refused(reason))
    assert told.status == (403 if reason in NEW else 404)
    assert told.description.startswith("because" if reason in NEW else "no azure identity found")
    switched = old_answer(refused(reason), retry_after_header=True)
    assert (switched.status, switched.retry_after) == ((403, 0) if reason in NEW else (503, 20))


def test_a_client_id_is_redacted_as_it_was() -> None:
    told = old_answer(refused(Reason.NOT_AMONG), ASKED)
    assert told.description.endswith("clientID 1111##### REDACTED #####5555")
    assert CLIENT not in told.description


def test_with_the_other_old_switch_what_is_absent_is_503_with_retry_after() -> None:
    told = old_answer(refused(Reason.NO_BINDING), retry_after_header=True)
    assert (told.status, told.retry_after) == (503, 20)
    assert ("Retry-After", "20") in old_response(told).headers


def test_the_body_is_that_of_gos_http_error() -> None:
    response = old_response(old_answer(errors.UnknownCaller("pod list is empty")))
    assert (response.status, response.body) == (500, b"pod list is empty\n")
    assert response.content_type == "text/plain; charset=utf-8"
    assert response.headers == (("X-Content-Type-Options", "nosniff"),)


def test_the_missing_header_was_told_in_json_and_is() -> None:
    response = old_response(old_answer(errors.InvalidRequest(NO_HEADER)))
    assert (response.status, response.content_type) == (400, "application/json; charset=utf-8")
    assert response.body == (
        b'{"error":"invalid_request","error_description":"Required metadata header not specified"}'
        b"\n"
    )


# Over the wire.

TOKEN = "GET /metadata/identity/oauth2/token?resource=a HTTP/1.1\nHost: x\nMetadata: true"
HERE = ("127.0.0.1",)


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (TOKEN.replace("?resource=a", ""), 400, "parameter resource cannot be empty\n"),
        (TOKEN.replace("token", "tok\\en"), 400, "Invalid request\n"),
        (TOKEN, 404, "no azure identity found for request clientID \n"),
        (TOKEN.replace("\nMetadata: true", ""), 400, '{"error":"invalid_request",'),
        (
            "GET /metadata/attested/document HTTP/1.1\nHost: x",
            403,
            "Request blocked by AAD Pod Identity NMI\n",
        ),
    ],
)
async def test_with_the_switch_on_pods_read_the_old_errors(
    request_: str, status: int, body: str
) -> None:
    async with agent(pod(labels={}, addresses=HERE), text_errors=True) as nmi:
        reply = await nmi.ask(request_)
    assert (reply.status, reply.body.decode()[: len(body)]) == (status, body)
    assert reply.body.endswith(b"\n")


HOST = "GET /host/token/?resource=a{} HTTP/1.1\nHost: x\nPodns: shop\nPodname: {}"


@pytest.mark.parametrize(
    ("asked", "name", "status", "body"),
    [
        (f"&client_id={OTHER_CLIENT}", "orders-0", 404, "no azure identity found for request"),
        ("", "lonely", 404, "no azure identity found for request clientID \n"),
        ("", "plain", 403, "Pod shop/plain mounts no volume of secrets-store.csi.k8s.io"),
    ],
)
async def test_with_the_switch_on_the_csi_provider_reads_the_old_errors(
    asked: str, name: str, status: int, body: str
) -> None:
    lonely = pod("lonely", labels={}, csi_drivers=MOUNTS.csi_drivers)
    async with agent(*WORLD, lonely, pod("plain"), text_errors=True) as nmi:
        nmi.attestor.uid = PROVIDER.uid
        reply = await nmi.ask(HOST.format(asked, name))
    assert (reply.status, reply.body.decode()[: len(body)]) == (status, body)


def test_with_the_switch_on_a_client_that_is_not_of_the_node_reads_the_old_words() -> None:
    response = old_response(old_answer(errors.UnprovenCaller(NOT_LOCAL), host=True))
    assert response.status == 500
    assert response.body == b"request remote address is not from a host\n"


def test_with_the_switch_on_an_unknown_pod_is_404_at_the_host_route_alone() -> None:
    error = errors.UnknownCaller("no pod shop/x is known on this node")
    assert (old_answer(error, host=True).status, old_answer(error).status) == (404, 500)


def test_with_both_switches_on_the_host_route_has_no_retry_after() -> None:
    told = old_answer(refused(Reason.NO_BINDING), retry_after_header=True, host=True)
    assert (told.status, told.retry_after) == (404, 0)


async def test_with_the_switch_on_tokens_are_as_ever() -> None:
    async with agent(text_errors=True) as nmi:
        assert (await nmi.ask(TOKEN)).json["access_token"] == "token-1"


async def test_with_the_other_switch_on_the_tenants_tokens_come_as_an_array() -> None:
    many = principal("shop", "orders", auxiliary_tenants=(Tenant("contoso.example"),))
    async with agent(pod(addresses=HERE), many, binding(), tenant_array=True) as nmi:
        reply = await nmi.ask(TOKEN)
    assert [each["access_token"] for each in reply.json] == ["token-1", "token-2"]
