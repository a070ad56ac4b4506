"""What an operator's settings mean: each reaches the part that it is for."""

from __future__ import annotations

from dataclasses import fields

import pytest

from podidentity.core.attestation import AttestationMode, Trust
from podidentity.core.authorities import CLOUDS, KNOWN_AUTHORITIES
from podidentity.core.decision import Ambiguity, Authorization, Rules
from podidentity.core.delegation import Delegation
from podidentity.core.resources import Authority, ObjectRef, Tenant
from podidentity.nmi.policies import (
    delegation_of,
    policy_of,
    prefetch_of,
    route_policy_of,
    scope_of,
    warn_of,
)
from podidentity.nmi.request.hold import HoldTimes
from podidentity.nmi.rules import rules_of, trust_of
from podidentity.nmi.sync.watches import Scope
from podidentity.settings import Compat, NmiSettings

DEFAULT = NmiSettings(node="n1", operation_mode="managed")
ALL_OLD = Compat(**{switch.name: True for switch in fields(Compat)})


def test_the_defaults_are_the_strict_rules() -> None:
    assert rules_of(DEFAULT) == Rules()
    assert policy_of(DEFAULT).hold == HoldTimes()
    assert scope_of(DEFAULT) == Scope(node="n1", exception_namespaces=frozenset({"kube-system"}))


def test_every_choice_reaches_the_rules() -> None:
    more = Authority("https://stack.example")
    settings = NmiSettings(
        node="n1",
        operation_mode="standard",
        exceptions_in=frozenset("*"),
        more_authorities=frozenset({more}),
        tenant=Tenant("contoso.example"),
        compat=ALL_OLD,
    )
    assert rules_of(settings) == Rules(
        standard=True,
        exception_namespaces=None,
        any_label=True,
        cross_namespace=True,
        foreign_secrets=True,
        authorities=KNOWN_AUTHORITIES | {more},
        tenant=Tenant("contoso.example"),
    )
    assert prefetch_of(settings).rules == rules_of(settings) == policy_of(settings).rules


def test_every_choice_reaches_the_service() -> None:
    settings = NmiSettings(
        node="n1",
        ambiguous=Ambiguity.REJECT,
        authorization=Authorization.OBSERVE,
        hold=1,
        retry_attempts_for_created=2,
        retry_attempts_for_assigned=1,
        find_identity_retry_interval=1,
    )
    found = policy_of(settings)
    assert (found.ambiguity, found.authorization) == (Ambiguity.REJECT, Authorization.OBSERVE)
    assert found.hold == HoldTimes(change=1, unseen=2, begun=3)
    nothing_held = policy_of(NmiSettings(node="n1", hold=0)).hold
    assert (nothing_held.change, nothing_held.spread) == (0, 0)
    assert not found.tenant_array
    assert policy_of(NmiSettings(node="n1", compat=ALL_OLD)).tenant_array


def test_every_choice_reaches_the_prefetch() -> None:
    china = CLOUDS["azurechinacloud"]
    settings = NmiSettings(node="n1", prefetch=("a",), cloud=china, authorization=Authorization.OFF)
    found = prefetch_of(settings)
    assert (found.choice, found.cloud, found.authorization) == (("a",), china, Authorization.OFF)


def test_nothing_is_trusted_in_place_of_a_pods_own_socket_but_what_was_chosen() -> None:
    assert trust_of(DEFAULT) == Trust()
    mesh = ObjectRef("istio-system", "ztunnel")
    settings = NmiSettings(
        node="n1",
        trusted_proxies=(mesh,),
        attestation_by_runtime_class=(("kata", AttestationMode.NAMESPACE),),
    )
    assert trust_of(settings) == Trust(
        proxies=(mesh,), by_class={"kata": AttestationMode.NAMESPACE}
    )


def test_who_asks_in_a_pods_name_is_who_was_chosen() -> None:
    assert delegation_of(DEFAULT) == Delegation()
    mine = ObjectRef("csi", "mine")
    settings = NmiSettings(node="n1", host_token="root", host_token_callers=(mine,))
    assert delegation_of(settings) == Delegation(callers=(mine,), root=True)
    nobody = NmiSettings(node="n1", host_token="off", host_token_callers=(mine,))
    assert delegation_of(nobody) == Delegation(callers=())


def test_the_open_paths_and_the_form_of_errors_are_as_they_were_chosen() -> None:
    strict = route_policy_of(DEFAULT)
    assert (strict.header_required, strict.retry_after_header, strict.text_errors) == (
        True,
        False,
        False,
    )
    assert strict.allow.holds("/metadata/instance")
    settings = NmiSettings(
        node="n1",
        metadata_allow=("/metadata/versions", "/metadata/instance/compute"),
        block_instance_metadata=True,
        metadata_header_required=False,
        retry_after_header=True,
        compat=ALL_OLD,
    )
    old = route_policy_of(settings)
    assert (old.header_required, old.retry_after_header, old.text_errors) == (False, True, True)
    assert old.allow.holds("/metadata/versions")
    assert not old.allow.holds("/metadata/instance/compute")


@pytest.mark.parametrize("labelled", [True, False])
def test_in_standard_mode_the_controllers_records_are_watched(labelled: bool) -> None:
    settings = NmiSettings(node="n1", only_own_records=labelled)
    assert scope_of(settings) == Scope(
        node="n1", records=True, labelled=labelled, exception_namespaces=frozenset({"kube-system"})
    )


def test_each_old_rule_that_is_on_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    warn_of(Compat())
    assert caplog.records == []
    warn_of(ALL_OLD)
    assert len(caplog.records) == len(fields(Compat))
    assert "--compat-cross-namespace is on" in caplog.text
