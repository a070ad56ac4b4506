"""What an operator's settings mean: each reaches the part that it is for."""

from __future__ import annotations

from dataclasses import fields

import pytest

from podidentity.core.attestation import AttestationMode, Trust
from podidentity.core.authorities import KNOWN_AUTHORITIES
from podidentity.core.decision import Ambiguity, Authorization, Rules
from podidentity.core.resources import Authority, ObjectRef, Tenant
from podidentity.nmi.policies import policy_of, prefetch_of, rules_of, scope_of, trust_of, warn_of
from podidentity.nmi.request.hold import HoldTimes
from podidentity.nmi.sync.watches import Scope
from podidentity.settings import Compat, NmiSettings

DEFAULT = NmiSettings(node="n1", operation_mode="managed")
ALL_OLD = Compat(**{switch.name: True for switch in fields(Compat)})


def test_the_defaults_are_the_strict_rules() -> None:
    assert rules_of(DEFAULT) == Rules()
    assert policy_of(DEFAULT).hold == HoldTimes()
    assert scope_of(DEFAULT) == Scope(node="n1")


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


@pytest.mark.parametrize("labelled", [True, False])
def test_in_standard_mode_the_controllers_records_are_watched(labelled: bool) -> None:
    settings = NmiSettings(node="n1", only_own_records=labelled)
    assert scope_of(settings) == Scope(node="n1", records=True, labelled=labelled)


def test_each_old_rule_that_is_on_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    warn_of(Compat())
    assert caplog.records == []
    warn_of(ALL_OLD)
    assert len(caplog.records) == len(fields(Compat))
    assert "--compat-cross-namespace is on" in caplog.text
