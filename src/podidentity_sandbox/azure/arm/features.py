"""Preview features, which a subscription registers for, and resource providers.

https://learn.microsoft.com/rest/api/resources/features
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.azure.arm.call import ArmError, Call
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import World

POD_IDENTITY = "Microsoft.ContainerService/EnablePodIdentityPreview"
_KNOWN = (POD_IDENTITY,)
_PROVIDERS = (
    "Microsoft.Authorization",
    "Microsoft.Compute",
    "Microsoft.ContainerService",
    "Microsoft.Features",
    "Microsoft.KeyVault",
    "Microsoft.ManagedIdentity",
    "Microsoft.Resources",
    "Microsoft.Storage",
)


def registered(world: World, feature: str, now: float) -> bool:
    """Return whether the subscription has the feature by now."""
    return world.features.get(feature.lower(), float("inf")) <= now


def register(call: Call) -> Reply:
    """Ask for a feature; it is there a little later."""
    feature = _known(call)
    call.world.features.setdefault(feature.lower(), call.now + call.world.arm_delay)
    return Reply.json(_json(call, feature))


def unregister(call: Call) -> Reply:
    """Give a feature up."""
    feature = _known(call)
    call.world.features.pop(feature.lower(), None)
    return Reply.json({**_json(call, feature), "properties": {"state": "Unregistered"}})


def get_feature(call: Call) -> Reply:
    """Say how a feature stands."""
    return Reply.json(_json(call, _known(call)))


def list_features(call: Call) -> Reply:
    """List the features of a provider, or all."""
    below = call.params.get("namespace", "").lower()
    found = [one for one in _KNOWN if not below or one.lower().startswith(f"{below}/")]
    return Reply.json({"value": [_json(call, one) for one in found]})


def get_provider(call: Call) -> Reply:
    """Return a resource provider: all that the sandbox has are registered from the start."""
    asked = call.params["namespace"]
    for name in _PROVIDERS:
        if name.lower() == asked.lower():
            return Reply.json(_provider(call, name))
    message = f"The resource namespace '{asked}' is invalid."
    raise ArmError(404, "InvalidResourceNamespace", message)


def list_providers(call: Call) -> Reply:
    """List the resource providers."""
    return Reply.json({"value": [_provider(call, name) for name in _PROVIDERS]})


def _known(call: Call) -> str:
    asked = f"{call.params['namespace']}/{call.params['name']}"
    for feature in _KNOWN:
        if feature.lower() == asked.lower():
            return feature
    message = f"The feature '{call.params['name']}' could not be found."
    raise ArmError(404, "FeatureNotFound", message)


def _json(call: Call, feature: str) -> dict[str, Any]:
    since = call.world.features.get(feature.lower())
    if since is None:
        state = "NotRegistered"
    else:
        state = "Registered" if since <= call.now else "Registering"
    namespace, _, name = feature.partition("/")
    base = f"{call.world.subscription}/providers/Microsoft.Features/providers/{namespace}"
    return {
        "id": f"{base}/features/{name}",
        "name": feature,
        "type": "Microsoft.Features/providers/features",
        "properties": {"state": state},
    }


def _provider(call: Call, name: str) -> dict[str, Any]:
    return {
        "id": f"{call.world.subscription}/providers/{name}",
        "namespace": name,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": [],
    }
