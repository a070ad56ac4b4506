"""Links that are neither label, binding nor identity: permission, assignment, exception."""

from __future__ import annotations

from podidentity.cli.chain import Fact, State
from podidentity.cli.explain import as_data, shown
from podidentity.core.authorities import Tenant
from podidentity.core.ids import ClientId, ObjectRef
from podidentity.core.resources import (
    AzurePodIdentityException,
    WorkloadIdentity,
)
from podidentity.core.usability import Rules
from tests.cli.explaining import (
    BINDING,
    BROKEN,
    GOOD,
    POD,
    chain,
    explained,
    pod,
)
from tests.cli.scripted import CLIENT


def test_without_the_permission_the_chain_ends_there_in_the_words_of_the_rules() -> None:
    denied = Fact(State.BROKEN, "service account shop/default may not use it")
    explanation = explained(POD, GOOD, BINDING, permission=denied)
    assert ("permission", BROKEN) in chain(explanation)
    data = as_data(explanation)
    assert (data["entitled"], data["reason"]) == (False, "NotPermitted")
    assert "podidentity grant --namespace shop" in str(data["nextStep"])


def test_a_permission_that_nobody_may_tell_of_breaks_nothing() -> None:
    unknown = Fact(State.UNKNOWN, "you may not ask")
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
    assert shown(explanation).endswith("The pod may use what is on the node's machine.")
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
