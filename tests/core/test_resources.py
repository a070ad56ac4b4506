from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.errors import NotYetKnown, Refused, TokenThrottled
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    AccessToken,
    AssertionSubject,
    AzureIdentity,
    AzureIdentityBinding,
    ClientId,
    Federation,
    IdentityType,
    InvalidId,
    ObjectId,
    ObjectRef,
    Origin,
    Phase,
    Pod,
    ResourceId,
    TokenRequest,
)
from tests.core.objects import client_id, resource_id

GUID = "6f1c2a3b-0000-4000-8000-0123456789ab"
RESOURCE = (
    "/subscriptions/S-1/resourceGroups/My.Group_(1)/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/My-Id"
)


@given(st.uuids())
def test_a_guid_is_equal_to_itself_in_any_case(guid: object) -> None:
    assert ClientId.parse(str(guid).upper()) == ClientId.parse(str(guid))
    assert str(ClientId.parse(str(guid).upper())) == str(guid)


def test_a_client_id_never_equals_an_object_id_of_the_same_text() -> None:
    assert len({ClientId.parse(GUID), ObjectId.parse(GUID)}) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        GUID + "0",
        GUID[:-1],
        GUID.replace("-", ""),
        "{" + GUID + "}",
        GUID + "\nx",
        GUID.replace("6", "\u0666"),  # a digit, but not of a GUID
        None,
        7,
        {"a": 1},
        [GUID],
    ],
)
def test_what_is_no_guid_is_refused_with_a_reason(text: object) -> None:
    with pytest.raises(InvalidId, match="must be a GUID"):
        ClientId.parse(text)


def test_white_space_round_an_id_does_not_matter() -> None:
    assert ClientId.parse(f" {GUID}\n") == ClientId.parse(GUID)
    assert ResourceId.parse(f" {RESOURCE}\n") == ResourceId.parse(RESOURCE)


def test_a_redacted_id_shows_its_ends_only() -> None:
    assert ClientId.parse(GUID).redacted == "6f1c…89ab"


def test_a_resource_id_is_compared_without_case_and_shown_as_written() -> None:
    written = ResourceId.parse(RESOURCE)
    assert written == ResourceId.parse(RESOURCE.upper())
    assert hash(written) == hash(ResourceId.parse(RESOURCE.lower()))
    assert str(written) == RESOURCE
    assert (written.subscription, written.group, written.name) == ("S-1", "My.Group_(1)", "My-Id")


def test_the_resource_group_of_an_identity_may_have_letters_of_any_script() -> None:
    written = ResourceId.parse(RESOURCE.replace("My.Group_(1)", "Größe_東京"))
    assert written.group == "Größe_東京"
    assert written == ResourceId.parse(written.folded)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/subscriptions/s",
        RESOURCE.replace("S-1", "ß"),
        RESOURCE.replace("My-Id", "größe"),
        RESOURCE.replace("subscriptions", "\u017fubscriptions"),
        RESOURCE.replace("My.Group_(1)", "gr\u00a0oup"),
        RESOURCE + "/",
        RESOURCE + "/federatedIdentityCredentials/x",
        RESOURCE.replace("ManagedIdentity", "Compute"),
        RESOURCE.replace("/subscriptions", "subscriptions"),
        RESOURCE.replace("My-Id", "a b"),
        RESOURCE.replace("My-Id", "a'b"),
        RESOURCE.replace("My-Id", "a&b=c"),
        RESOURCE.replace("My-Id", "a%2fb"),
        RESOURCE.replace("My-Id", "a\nb"),
        RESOURCE.replace("My-Id", ""),
        RESOURCE.replace("My-Id", ".."),
        RESOURCE.replace("My.Group_(1)", ".."),
        RESOURCE.replace("S-1", "."),
        "x" + RESOURCE,
        None,
        0,
    ],
)
def test_what_is_no_identity_of_azure_is_refused_with_a_reason(text: object) -> None:
    with pytest.raises(InvalidId, match="must"):
        ResourceId.parse(text)


def test_a_refused_text_is_shown_short_and_on_one_line() -> None:
    with pytest.raises(InvalidId) as caught:
        ClientId.parse("a\nb" * 10_000)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("length", [160, 161])
def test_a_refused_text_is_shown_whole_up_to_160_characters(length: int) -> None:
    text = "x" * length
    with pytest.raises(InvalidId) as caught:
        ClientId.parse(text)
    shown = repr(text) if length == 160 else repr("x" * 160 + "…")
    assert str(caught.value).endswith(shown)


@pytest.mark.parametrize("text", ["shop/web", "a/b.c", "0/1"])
def test_a_reference_is_a_namespace_and_a_name(text: str) -> None:
    assert str(ObjectRef.parse(text)) == text


@pytest.mark.parametrize("text", ["", "/", "a", "a/", "/a", "A/b", "a/B", "a/b/c", "a b/c", "a/b "])
def test_what_lacks_one_of_both_or_has_another_form_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidId, match="is not NAMESPACE/NAME"):
        ObjectRef.parse(text)


def test_names_of_kubernetes_are_compared_with_case() -> None:
    assert ObjectRef("a", "b") != ObjectRef("a", "B")
    assert str(ObjectRef("a", "b")) == "a/b"


TOKEN = AccessToken(
    value="eyJ.secret.sig",
    client_id=client_id(1),
    expires_on=1_000,
    not_before=0,
    resource="https://vault.azure.net",
)


def test_no_way_of_showing_a_token_shows_its_text() -> None:
    for shown in (repr(TOKEN), str(TOKEN), f"{TOKEN}", f"{TOKEN!r}", repr([TOKEN])):
        assert "secret" not in shown


def test_the_life_of_a_token_is_in_whole_seconds_and_never_negative() -> None:
    assert TOKEN.life(999.9) == 1
    assert TOKEN.life(1_000) == 0
    assert TOKEN.life(5_000) == 0


def test_the_id_asked_for_is_whichever_was_given() -> None:
    assert TokenRequest(resource="r").asked is None
    assert TokenRequest(resource="r", resource_id=resource_id(1)).asked == resource_id(1)


def test_what_is_not_said_of_a_pod_or_an_identity_lowers_nothing_and_opens_nothing() -> None:
    pod = Pod(ref=ObjectRef("a", "b"), uid="u")
    assert (pod.node, pod.service_account, pod.labels, pod.addresses) == ("", "default", {}, ())
    assert (pod.host_network, pod.phase, pod.started) == (False, Phase.RUNNING, 0.0)
    assert (pod.attestation, pod.probe, pod.config_hash, pod.runtime_class) == ("", "", "", "")
    assert (pod.csi_drivers, pod.in_ambient_mesh, pod.selector) == (frozenset(), False, "")
    assert pod.account == ObjectRef("a", "default")
    known = AzureIdentity(ref=pod.ref, type=IdentityType.USER_ASSIGNED)
    assert (known.system_assigned, known.namespaced) == (False, False)
    assert not TokenRequest(resource="r").bypass_cache
    assert Federation() == Federation(subject=AssertionSubject.POD, audience="", via=None)
    assert AzureIdentityBinding(ref=pod.ref, identity="i", selector="s").weight == 0


def test_a_pod_has_ended_when_it_succeeded_or_failed() -> None:
    pods = [Pod(ref=ObjectRef("a", "b"), uid="u", phase=phase) for phase in Phase]
    assert {pod.phase for pod in pods if pod.ended} == {Phase.SUCCEEDED, Phase.FAILED}


def test_the_words_for_the_origin_of_a_token_stay_because_logs_are_searched_by_them() -> None:
    assert [each.value for each in Origin] == ["cache", "imds", "entra", "shared"]


def test_a_failure_concerns_all_pods_unless_it_is_said_to_be_of_one() -> None:
    assert not TokenThrottled("slow", retry_after=1).of_caller
    assert not NotYetKnown("new", status=400, error="invalid_request").of_caller
    assert TokenThrottled("slow", retry_after=1, of_caller=True).of_caller


def test_an_error_of_a_refusal_says_only_what_the_pod_may_read() -> None:
    refusal = Refusal(reason=Reason.NO_LABEL, message="inside", next_step="Do.", told="outside")
    assert str(Refused(refusal)) == "outside"
    assert str(refusal) == "inside Do."
