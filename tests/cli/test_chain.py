from __future__ import annotations

import pytest

from podidentity.cli.chain import Explanation, Fact, State
from podidentity.cli.explain import as_data, shown
from podidentity.core.authorities import Authority, Tenant
from podidentity.core.ids import ObjectRef
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    AzureIdentityBinding,
    Entra,
    IdentityType,
    Malformed,
    Phase,
)
from tests.cli.explaining import (
    ATTACHED,
    BINDING,
    BROKEN,
    GOOD,
    POD,
    READY,
    chain,
    explained,
    pod,
)
from tests.cli.scripted import CLIENT


def test_a_whole_chain_entitles() -> None:
    explanation = explained(POD, GOOD, BINDING)
    assert explanation.entitled
    assert chain(explanation) == [
        ("pod", "ok"),
        ("binding", "ok"),
        ("identity", "ok"),
        ("permission", "ok"),
        ("machine", "ok"),
        ("nmi", "ok"),
    ]
    assert shown(explanation).endswith("The pod may use: orders.")
    data = as_data(explanation)
    assert (data["entitled"], data["reason"], data["message"]) == (True, "", "")
    assert data["identities"] == [{"name": "orders", "clientID": CLIENT}]


ELSEWHERE = AzureIdentityBinding(
    ref=ObjectRef("bank", "orders-binding"), identity="orders", selector="orders"
)
BAD_BINDING = Malformed(
    ref=BINDING.ref, kind="AzureIdentityBinding", why="spec.selector is missing"
)
BAD_IDENTITY = Malformed(ref=GOOD.ref, kind="AzureIdentity", why="spec.clientID is missing")
PRINCIPAL = AzureIdentity(
    ref=GOOD.ref,
    type=IdentityType.SERVICE_PRINCIPAL,
    client_id=GOOD.client_id,
    entra=Entra(
        tenant=Tenant.parse("contoso.com"), authority=Authority.parse("https://evil.example")
    ),
)


# What breaks → where the chain ends, the reason, and words that say it.
@pytest.mark.parametrize(
    ("explanation", "link", "reason", "words"),
    [
        (explained(pod(labels={}), GOOD, BINDING), "pod", "NoLabel", "has no label"),
        (explained(pod(host_network=True), GOOD, BINDING), "pod", "HostNetwork", "node's network"),
        (explained(pod(phase=Phase.FAILED), GOOD, BINDING), "pod", "PodEnded", "has ended"),
        (explained(POD, GOOD), "binding", "NoBinding", "No AzureIdentityBinding in namespace shop"),
        (
            explained(pod(labels={BINDING_LABEL: "Orders"}), GOOD, BINDING),
            "binding",
            "NoBinding",
            "'Orders'",
        ),
        (
            explained(POD, ELSEWHERE),
            "binding",
            "OtherNamespace",
            "must be in the same namespace",
        ),
        (
            explained(POD, GOOD, BAD_BINDING),
            "binding",
            "MalformedBinding",
            "spec.selector is missing",
        ),
        (explained(POD, BINDING), "identity", "NoIdentity", "does not exist in namespace shop"),
        (
            explained(POD, BAD_IDENTITY, BINDING),
            "identity",
            "MalformedIdentity",
            "spec.clientID is missing",
        ),
        (
            explained(POD, PRINCIPAL, BINDING),
            "identity",
            "UnknownAuthority",
            "names the authority https://evil.example, which is none of Azure's",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_the_chain_ends_where_the_rules_refuse(
    explanation: Explanation, link: str, reason: str, words: str
) -> None:
    assert not explanation.entitled
    assert [name for name, state in chain(explanation) if state == BROKEN] == [link]
    assert chain(explanation)[-1][0] == link
    data = as_data(explanation)
    assert (data["entitled"], data["reason"]) == (False, reason)
    assert words in str(data["message"])
    assert data["nextStep"]
    text = shown(explanation)
    assert words in text
    assert f"No token ({reason}). {data['nextStep']}" in text


@pytest.mark.parametrize(
    ("attached", "nmi", "link"),
    [
        (Fact(State.BROKEN, "not attached to scale set pool"), READY, "machine"),
        (ATTACHED, Fact(State.BROKEN, "no NMI on node node-0"), "nmi"),
    ],
)
def test_the_chain_ends_at_the_node_though_the_rules_allow(
    attached: Fact, nmi: Fact, link: str
) -> None:
    explanation = explained(POD, GOOD, BINDING, attached=attached, nmi=nmi)
    assert not explanation.entitled
    assert explanation.refusal is None
    data = as_data(explanation)
    assert data["reason"] == ""
    assert (attached if link == "machine" else nmi).text in str(data["message"])
    assert f"see {link!r} above" in shown(explanation)


def test_what_is_not_known_breaks_nothing() -> None:
    unknown = Fact(State.UNKNOWN, "you may not read it")
    assert explained(POD, GOOD, BINDING, attached=unknown, nmi=unknown).entitled


def test_one_identity_that_works_is_enough() -> None:
    other = AzureIdentityBinding(ref=ObjectRef("shop", "x"), identity="gone", selector="orders")
    explanation = explained(POD, GOOD, BINDING, other)
    assert explanation.entitled
    assert ("identity", BROKEN) in chain(explanation)
