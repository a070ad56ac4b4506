"""What the steps with the real az and kubectl must show; see `story` for how a judgement speaks."""

from __future__ import annotations

import json
import re
from typing import Any

from podidentity_sandbox.demo.prepare import SECRET_VALUE
from podidentity_sandbox.demo.shell import Ran
from podidentity_sandbox.demo.story import Stage, Unexpected, exited, expecting, must

POD_IDENTITY, NAMESPACE = "aad-pod-identity-demo", "identity-demo"


def _document(ran: Ran) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON that a command printed among its warnings."""
    exited(ran)
    start = re.search(r"^[\[{]", ran.output, re.MULTILINE)
    if start is None:
        raise Unexpected(f"no JSON came back: {ran.output[:200]}")
    with expecting("not the JSON of az"):
        return json.JSONDecoder().raw_decode(ran.output, start.start())[0]


async def registered(_stage: Stage, ran: Ran) -> str:
    """The feature is on its way at least."""
    with expecting("not a feature"):
        state = _document(ran)["properties"]["state"]
    must(state in {"Registered", "Registering"}, f"state {state}")
    return str(state)


async def enabled(_stage: Stage, ran: Ran) -> str:
    """The cluster's profile says so."""
    with expecting("not a cluster with the add-on"):
        cluster = _document(ran)
        must(cluster["podIdentityProfile"]["enabled"] is True, "podIdentityProfile is not enabled")
        must(cluster["provisioningState"] == "Succeeded", cluster["provisioningState"])
    return "podIdentityProfile.enabled is true"


async def made(_stage: Stage, ran: Ran) -> str:
    """A resource, completely made."""
    with expecting("not a resource"):
        found = _document(ran)
        state = found["properties"]["provisioningState"]
        must(state == "Succeeded", f"provisioningState {state}")
        return f"{found['name']} made"


async def vault_made(_stage: Stage, ran: Ran) -> str:
    """A vault with access policies, the operator's first."""
    with expecting("not a vault"):
        found = _document(ran)["properties"]
        must(found["enableRbacAuthorization"] is False, "it decides by roles")
        must(len(found["accessPolicies"]) == 1, "the operator's policy is not there")
        return str(found["vaultUri"])


async def secret_kept(_stage: Stage, ran: Ran) -> str:
    """The secret, with its version."""
    with expecting("not a secret"):
        found = _document(ran)
        must(found["value"] == SECRET_VALUE, f"value {found['value']!r}")
        return str(found["id"])


async def identity_made(stage: Stage, ran: Ran) -> str:
    """An identity; later steps are judged by its ids."""
    with expecting("not an identity"):
        found = _document(ran)
        stage.notes["client id"] = found["clientId"].lower()
        stage.notes["identity id"] = found["id"]
        stage.notes["principal id"] = found["principalId"]
        return f"client id {found['clientId']}"


async def account_made(_stage: Stage, ran: Ran) -> str:
    """A storage account as it was asked for."""
    with expecting("not a storage account"):
        found = _document(ran)
        must(found["provisioningState"] == "Succeeded", found["provisioningState"])
        got = (found["kind"], found["sku"]["name"], found["accessTier"])
        must(got == ("StorageV2", "Standard_LRS", "Hot"), f"made as {got}")
        must(found["enableHttpsTrafficOnly"] is True, "it is served without TLS")
        return str(found["primaryEndpoints"]["blob"])


async def container_made(_stage: Stage, ran: Ran) -> str:
    """A container that was not there."""
    with expecting("not the answer of container create"):
        must(_document(ran)["created"] is True, "created is not true")
    return "created"


async def made_before(_stage: Stage, ran: Ran) -> str:
    """Everything may be said again, but a vault is made once; the container was there."""
    exited(ran)
    wanted = ("Succeeded", "already exists", SECRET_VALUE, f"{POD_IDENTITY}-identity", "false")
    lacking = [word for word in wanted if word not in ran.output]
    must(not lacking, f"did not say {', '.join(lacking)}: {ran.output[:300]}")
    must(ran.output.count("Succeeded") == 2, "group and account are not both there as before")
    return "as before; the vault already exists; the container was there"


async def may_read_the_vault(stage: Stage, ran: Ran) -> str:
    """One principal with three kinds of permission."""
    with expecting("not a vault"):
        policies = _document(ran)["properties"]["accessPolicies"]
        mine = [each for each in policies if each["objectId"] == stage.notes["principal id"]]
        must(len(mine) == 1, f"{len(mine)} policies of the identity's principal")
        granted = {key: mine[0]["permissions"][key] for key in ("secrets", "keys", "certificates")}
    must(set(map(str, granted.values())) == {"['get']"}, f"granted {granted}")
    return "get for secrets, keys and certificates"


async def role_given(stage: Stage, ran: Ran) -> str:
    """An assignment to the identity's principal."""
    with expecting("not a role assignment"):
        found = _document(ran)
        must(found["principalId"] == stage.notes["principal id"], found["principalId"])
        return f"on {found['scope'].rpartition('/')[2]}"


async def pod_identity_added(stage: Stage, ran: Ran) -> str:
    """The cluster lists it, and has assigned it."""
    with expecting("not a cluster with pod identities"):
        (found,) = _document(ran)["podIdentityProfile"]["userAssignedIdentities"]
        got = (found["name"], found["namespace"], found["provisioningState"])
        must(got == (POD_IDENTITY, NAMESPACE, "Assigned"), f"listed as {got}")
        must(found["identity"]["clientId"].lower() == stage.notes["client id"], "another identity")
    return f"{POD_IDENTITY} in {NAMESPACE}: Assigned"


async def identity_and_binding(stage: Stage, ran: Ran) -> str:
    """Both objects, as AKS makes them."""
    with expecting("not an AzureIdentity and its binding"):
        kinds = {each["kind"]: each for each in _document(ran)["items"]}
        identity, binding = kinds["AzureIdentity"], kinds["AzureIdentityBinding"]
        names = (identity["metadata"]["name"], binding["metadata"]["name"])
        must(names == (POD_IDENTITY, f"{POD_IDENTITY}-binding"), f"named {names}")
        spec = identity["spec"]
        must(spec["clientID"].lower() == stage.notes["client id"], spec["clientID"])
        must(spec["resourceID"].lower() == stage.notes["identity id"].lower(), spec["resourceID"])
        must(spec.get("type", 0) == 0, f"type {spec.get('type')}")
        bound = (binding["spec"]["azureIdentity"], binding["spec"]["selector"])
        must(bound == (POD_IDENTITY, POD_IDENTITY), f"bound {bound}")
    return " and ".join(names)


def _attached(ran: Ran) -> set[str]:
    exited(ran)
    if not ran.output.strip():
        return set()
    with expecting("not the identities of a scale set"):
        return {key.lower() for key in _document(ran)["userAssignedIdentities"] or {}}


async def on_the_scale_set(stage: Stage, ran: Ran) -> str:
    """The identity is among those of the nodes."""
    must(stage.notes["identity id"].lower() in _attached(ran), "it is not on the scale set")
    return "the nodes have the identity"


async def off_the_scale_set(stage: Stage, ran: Ran) -> str:
    """The identity is detached, and the nodes keep what was theirs."""
    attached = _attached(ran)
    must(stage.notes["identity id"].lower() not in attached, "it is still on the scale set")
    must(attached, "the kubelet's identity was taken off with it")
    return "detached; the nodes keep their own"


async def cluster_may_use_it(stage: Stage, ran: Ran) -> str:
    """Managed Identity Operator is granted, and not to the identity itself."""
    exited(ran)
    must("Managed Identity Operator" in ran.output, f"not granted: {ran.output[:200]}")
    must(stage.notes["principal id"] not in ran.output, "granted to the identity itself")
    return "Managed Identity Operator, to the cluster's identity"


async def running(_stage: Stage, ran: Ran) -> str:
    """The pod runs."""
    exited(ran)
    must(re.search(r"\b1/1\s+Running\b", ran.output), f"not running: {ran.output[-200:]}")
    return "1/1 Running"


async def signed_in_as_the_identity(stage: Stage, ran: Ran) -> str:
    """The subscription is listed, and the user is a managed identity."""
    with expecting("not a list of subscriptions"):
        (found,) = _document(ran)
        must(found["name"] == stage.plan.subscription_name, found["name"])
        must(found["user"]["assignedIdentityInfo"] == "MSI", f"as {found['user']}")
    return f"{found['name']}, as a managed identity"


async def uploaded(_stage: Stage, ran: Ran) -> str:
    """The blob has an etag."""
    with expecting("no etag"):
        return f"etag {_document(ran)['etag']}"


async def in_the_container(_stage: Stage, ran: Ran) -> str:
    """The blob is listed."""
    exited(ran)
    must("identity-demo.txt" in ran.output.splitlines(), f"lists {ran.output[:200]!r}")
    return "identity-demo.txt"


async def log_says_why(_stage: Stage, ran: Ran) -> str:
    """The refused request, with the reason in words."""
    must("must be in the same namespace" in ran.output, f"no reason: {ran.output[-300:]}")
    return "the application and its AzureIdentity must be in the same namespace"


async def pod_identity_deleted(_stage: Stage, ran: Ran) -> str:
    """The cluster lists none any more."""
    with expecting("not a cluster"):
        profile = _document(ran)["podIdentityProfile"]
        must(profile["enabled"] is True, "pod identity was switched off")
        must(not profile.get("userAssignedIdentities"), "it is still listed")
    return "listed no more"


async def objects_gone(_stage: Stage, ran: Ran) -> str:
    """Neither AzureIdentity nor binding."""
    exited(ran)
    must("No resources found" in ran.output, f"still there: {ran.output[:200]}")
    return "gone"


async def refused_again(_stage: Stage, ran: Ran) -> str:
    """No token for the pod that had one."""
    exited(ran)
    must("access_token" not in ran.output, "a token was handed out")
    status = ran.output.split()[-1:]
    must(status == ["404"], f"status {status}: {ran.output[:200]}")
    return "404: nothing binds the pod any more"
