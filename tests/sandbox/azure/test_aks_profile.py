"""What a request may ask of the pod identity add-on, and how the add-on is shown.

https://learn.microsoft.com/rest/api/aks/managed-clusters/create-or-update
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from podidentity_sandbox.azure.aks.model import AddOn, PodIdentity
from podidentity_sandbox.azure.aks.profile import rendered, wanted
from podidentity_sandbox.azure.arm.call import ArmError

ID = (
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity"
    "/userAssignedIdentities/mine"
)


def identity(**change: Any) -> dict[str, Any]:
    asked = {"resourceId": ID, "clientId": "c", "objectId": "o"}
    return {"name": "a", "namespace": "shop", "identity": asked, **change}


def exception(**change: Any) -> dict[str, Any]:
    return {"name": "e", "namespace": "shop", "podLabels": {"k": "v"}, **change}


def profile(*identities: Any, exceptions: Any = (), **change: Any) -> dict[str, Any]:
    return {
        "enabled": True,
        "userAssignedIdentities": list(identities),
        "userAssignedIdentityExceptions": list(exceptions),
        **change,
    }


def states(add_on: AddOn) -> dict[str, str]:
    return {one.name: one.state for one in add_on.identities}


def test_what_was_asked_for_is_shown_again_with_its_state() -> None:
    sent = profile(
        identity(bindingSelector="green"),
        exceptions=[exception()],
        allowNetworkPluginKubenet=True,
    )
    shown = rendered(wanted(sent, None))
    assert shown["userAssignedIdentities"][0].pop("provisioningState") == "Updating"
    assert shown == sent


def test_an_empty_profile_shows_no_lists() -> None:
    assert rendered(wanted({"enabled": True}, None)) == {"enabled": True}
    assert rendered(wanted({"enabled": False}, None)) == {"enabled": False}


def test_what_is_left_out_is_going_until_azure_is_done() -> None:
    old = wanted(profile(identity(), identity(name="b")), None)
    assert states(wanted(profile(identity()), old)) == {"a": "Updating", "b": "Deleting"}
    gone = wanted({"enabled": False}, old)
    assert (gone.enabled, states(gone)) == (False, {"a": "Deleting", "b": "Deleting"})


def test_what_is_assigned_and_unchanged_stays_assigned() -> None:
    first = wanted(profile(identity()), None)
    shown = rendered(first)["userAssignedIdentities"][0]
    assigned = AddOn(enabled=True, identities=(_assigned(first),))
    assert states(wanted(profile(shown), assigned)) == {"a": "Assigned"}
    other = identity(bindingSelector="green")
    assert states(wanted(profile(other), assigned)) == {"a": "Updating"}


def _assigned(add_on: AddOn) -> PodIdentity:
    return replace(add_on.identities[0], state="Assigned")


def test_a_failure_is_shown_with_its_error_twice_wrapped() -> None:
    one = replace(_assigned(wanted(profile(identity()), None)), state="Failed", error=("Code", "w"))
    shown = rendered(AddOn(enabled=True, identities=(one,)))["userAssignedIdentities"][0]
    assert shown["provisioningInfo"] == {"error": {"error": {"code": "Code", "message": "w"}}}


def test_a_missing_name_is_made() -> None:
    made = wanted(profile(identity(name=""), identity(name=None)), None)
    assert len(states(made)) == 2
    assert all(name.startswith("pod-identity-") for name in states(made))


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        ("yes", "podIdentityProfile "),
        (profile("a"), "userAssignedIdentities[0] "),
        (profile(userAssignedIdentities="x"), "userAssignedIdentities "),
        (profile(*[identity(name=f"n{n}") for n in range(201)]), "userAssignedIdentities "),
        (profile(identity(namespace="")), "userAssignedIdentities[0].namespace "),
        (profile(identity(namespace="Shop")), "userAssignedIdentities[0].namespace "),
        (profile(identity(name="A b")), "userAssignedIdentities[0].name "),
        (profile(identity(identity=None)), "userAssignedIdentities[0].identity "),
        (
            profile(identity(identity={"resourceId": "/x"})),
            "userAssignedIdentities[0].identity.resourceId ",
        ),
        (profile(identity(), identity()), "userAssignedIdentities[1] "),
        (
            profile(exceptions=[exception(podLabels=None)]),
            "userAssignedIdentityExceptions[0].podLabels ",
        ),
        (
            profile(exceptions=[exception(podLabels={"a": 1})]),
            "userAssignedIdentityExceptions[0].podLabels ",
        ),
        (profile(exceptions=[exception(), exception()]), "userAssignedIdentityExceptions[1] "),
    ],
)
def test_malformed_values_are_refused_where_they_stand(sent: Any, where: str) -> None:
    with pytest.raises(ArmError) as refusal:
        wanted(sent, None)
    assert refusal.value.code == "InvalidParameter"
    assert where in str(refusal.value)
