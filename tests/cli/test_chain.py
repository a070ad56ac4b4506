"""The chain of a pod: label, binding, identity, permission, credential or machine, and NMI."""

from __future__ import annotations

import itertools
import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import Custom, WatchedCluster
from podidentity.cli.chain import Credentials, Explanation, Fact, LinkState, Node, follow
from podidentity.cli.explain import as_data, shown
from podidentity.core.decision import STRICT, Rules, decide, match, uses_of
from podidentity.core.federation import account_name
from podidentity.core.resources import (
    BINDING_LABEL,
    Authority,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    ClientId,
    Entra,
    IdentityType,
    Malformed,
    ObjectRef,
    Phase,
    Pod,
    ResourceId,
    Tenant,
    TokenRequest,
    WorkloadIdentity,
)
from tests.cli.conftest import Ran
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.world import CUSTOM, World
from tests.principals import certificate_of, pem_of, pfx_of, principal, rsa_key

POD = Pod(
    ref=ObjectRef("shop", "orders-0"),
    uid="u",
    node="node-0",
    labels={BINDING_LABEL: "orders"},
)
GOOD = AzureIdentity(
    ref=ObjectRef("shop", "orders"),
    type=IdentityType.USER_ASSIGNED,
    client_id=ClientId.parse(CLIENT),
    resource_id=ResourceId.parse(IDENTITY),
)
BINDING = AzureIdentityBinding(
    ref=ObjectRef("shop", "orders-binding"), identity="orders", selector="orders"
)
ATTACHED = Fact(LinkState.HOLDS, "attached to scale set pool")
PERMITTED = Fact(LinkState.HOLDS, "service account shop/default may use it")
READY = Fact(LinkState.HOLDS, "nmi-x is ready on node node-0")


def explained(
    pod: Pod = POD,
    *objects: Custom,
    attached: Fact = ATTACHED,
    nmi: Fact = READY,
    permission: Fact = PERMITTED,
    credentials: Credentials | None = None,
    rules: Rules = STRICT,
) -> Explanation:
    cluster = WatchedCluster.of(
        SystemClock(),
        pods=[pod],
        identities=[
            each
            for each in objects
            if isinstance(each, AzureIdentity)
            or (isinstance(each, Malformed) and each.kind == "AzureIdentity")
        ],
        bindings=[
            each
            for each in objects
            if isinstance(each, AzureIdentityBinding)
            or (isinstance(each, Malformed) and each.kind == "AzureIdentityBinding")
        ],
        exceptions=[each for each in objects if isinstance(each, AzurePodIdentityException)],
        accounts=[each for each in objects if isinstance(each, WorkloadIdentity)],
    )
    matched = match(pod, cluster, rules)
    bound = matched.entitlements
    node = Node(attached={each.identity.ref: attached for each in bound}, ways={"nmi": nmi})
    permissions = {use: permission for each in bound for use in uses_of(pod, each)}
    decision = decide(
        matched,
        TokenRequest(resource=""),
        lambda use: permissions[use].state is not LinkState.BROKEN,
    )
    return follow(matched, decision, permissions, node, credentials or {})


def chain(explanation: Explanation) -> list[tuple[str, str]]:
    return [(link.name, link.state.value) for link in explanation.links]


def pod(**changed: object) -> Pod:
    known: dict[str, object] = {
        "ref": POD.ref,
        "uid": POD.uid,
        "node": POD.node,
        "labels": POD.labels,
    }
    return Pod(**{**known, **changed})  # type: ignore[arg-type]


BROKEN = "no"


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
    assert shown(explanation).endswith(
        "Nothing in the cluster stands against a token of orders. Azure was not asked."
    )
    assert as_data(explanation)["verdict"] == "clear"
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
            "NoBinding",
            "spec.selector",
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
    assert f"Refused ({reason}). {data['nextStep']}" in text


@pytest.mark.parametrize(
    ("attached", "nmi", "link"),
    [
        (Fact(LinkState.BROKEN, "not attached to scale set pool"), READY, "machine"),
        (ATTACHED, Fact(LinkState.BROKEN, "no NMI on node node-0"), "nmi"),
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
    assert f"the link {link!r} is broken" in shown(explanation)


def test_what_is_not_known_breaks_nothing() -> None:
    unknown = Fact(LinkState.UNKNOWN, "you may not read it")
    assert explained(POD, GOOD, BINDING, attached=unknown, nmi=unknown).entitled


def test_one_identity_that_works_is_enough() -> None:
    other = AzureIdentityBinding(ref=ObjectRef("shop", "x"), identity="gone", selector="orders")
    explanation = explained(POD, GOOD, BINDING, other)
    assert explanation.entitled
    assert ("identity", BROKEN) in chain(explanation)


def test_without_the_permission_the_chain_ends_there_in_the_words_of_the_rules() -> None:
    denied = Fact(LinkState.BROKEN, "service account shop/default may not use it")
    explanation = explained(POD, GOOD, BINDING, permission=denied)
    assert ("permission", BROKEN) in chain(explanation)
    data = as_data(explanation)
    assert (data["entitled"], data["reason"]) == (False, "NotPermitted")
    assert "podidentity grant --namespace shop" in str(data["nextStep"])


def test_a_permission_that_nobody_may_tell_of_breaks_nothing() -> None:
    unknown = Fact(LinkState.UNKNOWN, "you may not ask")
    assert explained(POD, GOOD, BINDING, permission=unknown).entitled


def test_an_identity_that_is_not_on_the_node_yet_ends_the_chain_in_standard_mode() -> None:
    explanation = explained(POD, GOOD, BINDING, rules=Rules(standard=True))
    assert ("assignment", BROKEN) in chain(explanation)
    assert as_data(explanation)["reason"] == "NotAssigned"


def test_an_excepted_pod_is_answered_by_the_node() -> None:
    system = pod(ref=ObjectRef("kube-system", "addon"), labels={"app": "addon"})
    exception = AzurePodIdentityException(
        ref=ObjectRef("kube-system", "addons"), pod_labels={"app": "addon"}
    )
    explanation = explained(system, exception)
    assert explanation.entitled
    assert chain(explanation) == [("pod", "ok"), ("exception", "ok"), ("nmi", "ok")]
    assert shown(explanation).endswith(
        "against a token of the node's machine. Azure was not asked."
    )
    mine = AzurePodIdentityException(ref=ObjectRef("shop", "mine"), pod_labels={"app": "x"})
    refused = explained(pod(labels={"app": "x"}), mine)
    assert chain(refused)[-1] == ("exception", BROKEN)
    assert as_data(refused)["reason"] == "ExceptionIgnored"


def test_an_annotated_service_account_needs_no_machine_and_no_permission() -> None:
    account = WorkloadIdentity(
        ref=ObjectRef("shop", "default"),
        client_id=ClientId.parse(CLIENT),
        tenant=Tenant.parse("contoso.com"),
    )
    explanation = explained(pod(labels={}), account)
    assert explanation.entitled
    assert chain(explanation) == [("pod", "ok"), ("service account", "ok"), ("nmi", "ok")]


SIGNED = certificate_of(rsa_key(), "orders", starts=0, ends=4_000_000_000)
EXPIRED = certificate_of(rsa_key(), "orders", starts=0, ends=1_000_000_000)
MAIL = replace(principal(), ref=ObjectRef("shop", "mail"))
Run = Callable[..., Ran]
NUMBERS = itertools.count()


class Here(NamedTuple):
    """A namespace of the test's own, and the command."""

    world: World
    ns: str
    podidentity: Run


@pytest.fixture
def here(world: World, podidentity: Run) -> Iterator[Here]:
    name = world.namespace(f"credentials-{next(NUMBERS)}")
    yield Here(world, name, podidentity)
    for plural in ("azureidentities", "azureidentitybindings"):
        world.send("DELETE", f"{CUSTOM}/namespaces/{name}/{plural}")


def bound(world: World, ns: str, **spec: Any) -> None:
    """Bind pod `a` to an identity that signs in to Entra."""
    known = {"clientID": CLIENT, "tenantID": "contoso.com", **spec}
    world.custom(ns, "azureidentities", "orders", known)
    names = {"azureIdentity": "orders", "selector": "orders"}
    world.custom(ns, "azureidentitybindings", "orders", names)
    world.pod(ns, "a", {BINDING_LABEL: "orders"})


def credential(podidentity: Run, ns: str) -> tuple[str, str]:
    """Return state and text of the link, as `explain` prints it."""
    out = podidentity("explain", "pod", f"{ns}/a").out
    (line,) = [each for each in out.splitlines() if each.startswith("credential")]
    _, state, text = line.split(maxsplit=2)
    return state, text.replace(ns, "NS")


@pytest.mark.parametrize(
    ("kind", "entries", "state", "text"),
    [
        (1, None, "no", "orders: Secret NS/keys does not exist"),
        (1, {"clientSecret": b"quiet"}, "ok", "orders: Secret NS/keys has a client secret"),
        (
            1,
            {"a": b"quiet", "b": b"quiet"},
            "no",
            "orders: Secret keys cannot be used: it has no key clientSecret, only: a, b",
        ),
        (
            2,
            {"orders.pem": pem_of(rsa_key(), SIGNED)},
            "ok",
            "orders: Secret NS/keys has a certificate, valid until 2096-10-02",
        ),
        (
            2,
            {"orders.pem": pem_of(rsa_key(), EXPIRED)},
            "no",
            "orders: Secret keys cannot be used: the certificate expired on 2001-09-09 01:46 UTC",
        ),
        (
            2,
            {"certificate": pfx_of(rsa_key(), SIGNED, password=b"x"), "password": b"quiet"},
            "no",
            "orders: Secret keys cannot be used: it is neither PKCS#12 nor PEM, "
            "or its password is wrong",
        ),
    ],
    ids=["absent", "secret", "without its key", "certificate", "expired", "wrong password"],
)
def test_the_secret_of_an_identity_is_looked_at_and_not_shown(
    here: Here, kind: int, entries: dict[str, bytes] | None, state: str, text: str
) -> None:
    world, ns, podidentity = here
    bound(world, ns, type=kind, clientPassword={"name": "keys"})
    if entries is not None:
        data = {key: b64encode(value).decode() for key, value in entries.items()}
        body = {"metadata": {"name": "keys"}, "data": data}
        world.send("POST", f"/api/v1/namespaces/{ns}/secrets", body)
    assert credential(podidentity, ns) == (state, text)
    assert "quiet" not in podidentity("explain", "pod", f"{ns}/a", "-o", "json").out
    why = text.removeprefix("orders: ").replace("NS", ns)
    told = f"AzureIdentity {ns}/orders cannot sign in: {why}."
    listed = json.loads(podidentity("check", "-o", "json").out)
    assert (told in {each["message"] for each in listed}) == (state == "no")


def test_the_own_account_of_a_federated_identity_is_looked_for(
    here: Here,
) -> None:
    world, ns, podidentity = here
    bound(world, ns, type=3, federation={"subject": "identity"})
    account = f"podidentity-identities/{account_name(ObjectRef(ns, 'orders'))}"
    assert credential(podidentity, ns) == ("no", f"orders: ServiceAccount {account} does not exist")


def test_an_identity_that_cannot_sign_in_ends_the_chain_unless_another_can() -> None:
    broken = Fact(LinkState.BROKEN, "Secret shop/keys does not exist")
    assert explained(POD, GOOD, BINDING, credentials={GOOD.ref: broken}).entitled
    other = AzureIdentityBinding(ref=ObjectRef("shop", "x"), identity="mail", selector="orders")
    alone = explained(POD, MAIL, other, credentials={MAIL.ref: broken})
    assert not alone.entitled
    assert "the link 'credential' is broken" in shown(alone)
    both = explained(POD, GOOD, BINDING, MAIL, other, credentials={MAIL.ref: broken})
    assert both.entitled
