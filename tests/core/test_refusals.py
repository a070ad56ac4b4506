"""The texts of refusals, for the operator and for the pod."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podidentity.core.decision import match
from podidentity.core.refusals import Reason
from podidentity.core.resources import Malformed, ObjectRef, Phase, Pod
from tests.core.objects import binding, identity, pod
from tests.core.worlds import World

BOUND = World(
    [binding("blue", "b", "alpha", "app")],
    [identity("blue", "alpha"), identity("green", "alpha", 2)],
)
BAD_BINDING = Malformed(
    ref=ObjectRef("blue", "b"), kind="AzureIdentityBinding", why="spec.azureIdentity is empty"
)
NO_LABEL = (
    "Pod blue/pod has no label aadpodidbinding, and its service account default is not annotated "
    "with azure.workload.identity/client-id."
)
REFUSALS: list[tuple[str, World, Pod, Reason, str, str]] = [
    (
        "no label",
        BOUND,
        pod(selector=None),
        Reason.NO_LABEL,
        NO_LABEL,
        "Identity not found",
    ),
    (
        "an empty label is none",
        BOUND,
        pod(selector=""),
        Reason.NO_LABEL,
        NO_LABEL,
        "Identity not found",
    ),
    (
        "no binding",
        BOUND,
        pod(selector="other"),
        Reason.NO_BINDING,
        "No AzureIdentityBinding in namespace blue has the selector 'other'.",
        "No AzureIdentityBinding in namespace blue has the selector 'other'.",
    ),
    (
        "a selector of another case",
        BOUND,
        pod(selector="App"),
        Reason.NO_BINDING,
        "No AzureIdentityBinding in namespace blue has the selector 'App'.",
        "No AzureIdentityBinding in namespace blue has the selector 'App'.",
    ),
    (
        "bound in another namespace only",
        BOUND,
        pod("green"),
        Reason.OTHER_NAMESPACE,
        "No AzureIdentityBinding in namespace green has the selector 'app'. Namespace blue has "
        "one, but the application and its AzureIdentity must be in the same namespace.",
        "No AzureIdentityBinding in namespace green has the selector 'app'.",
    ),
    (
        "the identity does not exist",
        World([binding("blue", "b", "gone", "app")], []),
        pod(),
        Reason.NO_IDENTITY,
        "AzureIdentityBinding blue/b names AzureIdentity 'gone', which does not exist in "
        "namespace blue.",
        "AzureIdentityBinding blue/b names AzureIdentity 'gone', which does not exist in "
        "namespace blue.",
    ),
    (
        "the identity is in another namespace only",
        World([binding("blue", "b", "alpha", "app")], [identity("green", "alpha")]),
        pod(),
        Reason.NO_IDENTITY,
        "AzureIdentityBinding blue/b names AzureIdentity 'alpha', which does not exist in "
        "namespace blue.",
        "AzureIdentityBinding blue/b names AzureIdentity 'alpha', which does not exist in "
        "namespace blue.",
    ),
    (
        "the identity is malformed",
        World(
            [binding("blue", "b", "alpha", "app")],
            [
                Malformed(
                    ref=ObjectRef("blue", "alpha"),
                    kind="AzureIdentity",
                    why="spec.clientID must be a GUID, not 'x'",
                )
            ],
        ),
        pod(),
        Reason.MALFORMED_IDENTITY,
        "AzureIdentity blue/alpha cannot be used: spec.clientID must be a GUID, not 'x'.",
        "AzureIdentity blue/alpha cannot be used: spec.clientID must be a GUID, not 'x'.",
    ),
    (
        "its binding is malformed",
        World(bad_bindings=[BAD_BINDING, replace(BAD_BINDING, selector="app")]),
        pod(),
        Reason.MALFORMED_BINDING,
        "No AzureIdentityBinding in namespace blue has the selector 'app'. AzureIdentityBinding "
        "blue/b cannot be used: spec.azureIdentity is empty.",
        "No AzureIdentityBinding in namespace blue has the selector 'app'. AzureIdentityBinding "
        "blue/b cannot be used: spec.azureIdentity is empty.",
    ),
    (
        "the binding of others is malformed",
        World(bad_bindings=[replace(BAD_BINDING, selector="other")]),
        pod(),
        Reason.NO_BINDING,
        "No AzureIdentityBinding in namespace blue has the selector 'app'.",
        "No AzureIdentityBinding in namespace blue has the selector 'app'.",
    ),
    (
        "a binding is malformed that does not say whose it is",
        World(bad_bindings=[BAD_BINDING]),
        pod(),
        Reason.NO_BINDING,
        "No AzureIdentityBinding in namespace blue has the selector 'app'. AzureIdentityBinding "
        "blue/b cannot be used: spec.azureIdentity is empty.",
        "No AzureIdentityBinding in namespace blue has the selector 'app'.",
    ),
    (
        "such a one, and a binding in another namespace",
        World([binding("green", "b", "alpha", "app")], bad_bindings=[BAD_BINDING]),
        pod(),
        Reason.OTHER_NAMESPACE,
        "No AzureIdentityBinding in namespace blue has the selector 'app'. Namespace green has "
        "one, but the application and its AzureIdentity must be in the same namespace. "
        "AzureIdentityBinding blue/b cannot be used: spec.azureIdentity is empty.",
        "No AzureIdentityBinding in namespace blue has the selector 'app'.",
    ),
    (
        "the node's network",
        BOUND,
        pod(host_network=True),
        Reason.HOST_NETWORK,
        "Pod blue/pod uses the node's network, where pods cannot be told apart.",
        "Pod blue/pod uses the node's network, where pods cannot be told apart.",
    ),
    (
        "ended",
        BOUND,
        pod(phase=Phase.FAILED),
        Reason.POD_ENDED,
        "Pod blue/pod has ended (Failed).",
        "Pod blue/pod has ended (Failed).",
    ),
]


@pytest.mark.parametrize(
    ("world", "asker", "reason", "message", "told"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_each_refusal_says_why_to_the_operator_and_no_more_than_allowed_to_the_pod(
    world: World, asker: Pod, reason: Reason, message: str, told: str
) -> None:
    found = match(asker, world)
    assert found.entitlements == ()
    [refusal] = found.refusals
    assert (refusal.reason, refusal.message, refusal.public) == (reason, message, told)
    assert refusal.next_step.endswith(".")


def test_the_words_of_reasons_stay_because_logs_and_metrics_are_searched_by_them() -> None:
    assert [each.value for each in Reason] == [
        "NoLabel",
        "ExceptionIgnored",
        "NoBinding",
        "OtherNamespace",
        "NoIdentity",
        "MalformedBinding",
        "MalformedIdentity",
        "UnknownAuthority",
        "ForeignSecret",
        "NoTenant",
        "NotAssigned",
        "NotPermitted",
        "HostNetwork",
        "PodEnded",
        "NotAmongThePodsIdentities",
        "SeveralIdentities",
        "NotAProvider",
        "NoCsiVolume",
        "MadeByProxy",
        "AddressContested",
        "RuntimeClass",
    ]


def test_the_selector_is_the_bindings_and_the_label_the_pods() -> None:
    """Both sides of a property would move together if the comparison were turned round."""
    found = match(pod("blue", "app"), BOUND)
    assert [str(each.identity.ref) for each in found.entitlements] == ["blue/alpha"]


def test_a_bad_identity_does_not_take_a_good_one_away() -> None:
    world = World(
        [binding("blue", "b1", "bad", "app"), binding("blue", "b2", "good", "app")],
        [
            Malformed(ref=ObjectRef("blue", "bad"), kind="AzureIdentity", why="it is bad"),
            identity("blue", "good"),
        ],
    )
    found = match(pod(), world)
    assert [each.identity.ref.name for each in found.entitlements] == ["good"]
    assert [each.reason for each in found.refusals] == [Reason.MALFORMED_IDENTITY]


def test_two_bindings_of_one_identity_are_one_entitlement_by_the_heavier() -> None:
    world = World(
        [binding("blue", "b1", "alpha", "app", 1), binding("blue", "b2", "alpha", "app", 9)],
        [identity("blue", "alpha")],
    )
    [found] = match(pod(), world).entitlements
    assert found.binding is not None
    assert found.binding.ref.name == "b2"
