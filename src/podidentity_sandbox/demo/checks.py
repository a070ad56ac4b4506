"""The check of each step of the story; see `story` for how a check reports."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import SECRET_VALUE
from podidentity_sandbox.demo.shell import Ran
from podidentity_sandbox.demo.story import Check, StoryContext, inside, must

POD_IDENTITY, NAMESPACE = "aad-pod-identity-demo", "identity-demo"


async def succeeded(_context: StoryContext, ran: Ran) -> str:
    return (ran.output.strip().splitlines() or ["done"])[-1]


async def created(_context: StoryContext, ran: Ran) -> str:
    must("created" in ran.output, f"nothing was created: {ran.output[:200]}")
    return "created"


async def prepared(context: StoryContext, ran: Ran) -> str:
    """The story's identity is there; later steps compare its ids."""
    context.notes["client id"], context.notes["identity id"] = ran.output.split()
    return context.notes["client id"]


def _answer(ran: Ran) -> tuple[dict[str, Any], list[str]]:
    body, end = json.JSONDecoder().raw_decode(ran.output)
    return body, ran.output[end:].split()


def _refused(ran: Ran, wanted: str) -> dict[str, Any]:
    """Return the answer to a request that got this status and no token."""
    body, (status,) = _answer(ran)
    must(status == wanted, f"status {status}, not {wanted}: {body}")
    must("access_token" not in body, "a token was handed out")
    return body


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


async def leaks(_context: StoryContext, ran: Ran) -> str:
    """The pod has a token of the node's own identity: the sandbox's IMDS is as open as Azure's."""
    body, _ = _answer(ran)
    owner = _claims(body["access_token"])["appid"]
    return f"a token of {owner}, the node's identity: this is the hole"


async def names_a_right(_context: StoryContext, ran: Ran) -> str:
    found = re.search(r'cannot \w+ resource "\S+"', ran.output)
    must(found, f"no right is named: {ran.output[-300:]}")
    return f"it {found[0]}" if found else ""


async def roles_assigned(_context: StoryContext, ran: Ran) -> str:
    lines = ran.output.splitlines()
    must(
        len(lines) == 2 and all(" assigned at /subscriptions/" in line for line in lines),
        f"two assignments were expected: {ran.output[:300]}",
    )
    return "one at the identity, one at the nodes' resource group"


async def one_nmi_a_node(context: StoryContext, ran: Ran) -> str:
    lines, nodes = ran.output.splitlines(), len(context.plan.nodes)
    running = [line for line in lines if re.search(r"\b2/2\s+Running\b", line)]
    must(
        len(lines) == len(running) == nodes,
        f"{len(running)} of {len(lines)} NMI pods run on {nodes} nodes",
    )
    return f"{len(running)} of {nodes} nodes"


_AT_ONCE = 5.0
"""Seconds, on a machine of any load; what is waited for, an answer takes longer (--hold)."""


async def identity_not_found(_context: StoryContext, ran: Ran) -> str:
    """400 in the words of IMDS, at once."""
    body, (status, seconds) = _answer(ran)
    must(status == "400", f"status {status}, not 400")
    must(body.get("error_description") == "Identity not found", f"answered {body}")
    must(float(seconds) < _AT_ONCE, f"took {seconds} s: it must not wait")
    return f"400 Identity not found, in {float(seconds) * 1000:.0f} ms"


async def ids_of_the_identity(context: StoryContext, ran: Ran) -> str:
    resource_id, client_id = ran.output.split()
    must(client_id.lower() == context.notes["client id"], f"client id {client_id}")
    must(resource_id.lower() == context.notes["identity id"].lower(), f"resource id {resource_id}")
    return client_id


async def identity_added(context: StoryContext, _ran: Ran) -> str:
    """AzureIdentity and binding are there, and the scale set has the identity."""
    async with AzureOperator(context.plan) as azure:
        scale_set = await azure.arm("GET", context.plan.scale_set_id)
    _must_be_attached(context, scale_set["identity"])
    return "AzureIdentity and AzureIdentityBinding made, identity on the scale set"


async def opens_shell(context: StoryContext, _ran: Ran) -> str:
    """It is the pod's own world, and nothing in its environment is secret."""
    namespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
    where = await inside(context).run(f"hostname; cat {namespace}")
    must(where.output.split() == ["identity-demo"] * 2, f"inside is {where.output!r}")
    secrets = await inside(context).run("env | grep -ciE 'secret=|password|^AZURE_'")
    must(secrets.output.strip() == "0", "the pod's environment holds a secret")
    return "open; the pod's environment holds no secret"


async def token_of_the_identity(context: StoryContext, _ran: Ran) -> str:
    """The exported token is a JWT of the identity; it is not shown."""
    claims = _claims((await inside(context).run('printf %s "$token"')).output)
    must(claims.get("appid") == context.notes["client id"], f"a token of {claims.get('appid')}")
    must(claims.get("aud") == "https://vault.azure.net", f"for audience {claims.get('aud')}")
    hours = (claims["exp"] - time.time()) / 3600
    return f"a JWT of {claims['appid']} for {claims['aud']}, valid {hours:.1f} h (not shown)"


async def secret(_context: StoryContext, ran: Ran) -> str:
    must(ran.output == SECRET_VALUE, f"the vault answered {ran.output[:200]!r}")
    return "the secret, read without any secret in the pod"


async def vault_refuses(_context: StoryContext, ran: Ran) -> str:
    code = _refused(ran, "403")["error"]["code"]
    return f"403 {code} by the vault: the token is not a master key"


async def log_names_everything(_context: StoryContext, ran: Ran) -> str:
    wanted = (
        "pod=identity-demo",
        "namespace=identity-demo",
        "identity=aad-pod-identity-demo",
        "https://vault.azure.net",
        "status=200",
    )
    lines = [line for line in ran.output.splitlines() if all(word in line for word in wanted)]
    must(lines, "no line names the pod, its identity, the resource and status 200")
    must(any(re.search(r"\bms=|\"ms\"", line) for line in lines), "the time taken is not there")
    must("eyJ" not in ran.output, "a token is in the log")
    return "pod, namespace, identity, resource, status 200 and the time taken; no token"


async def refused_elsewhere(_context: StoryContext, ran: Ran) -> str:
    """No token, and no word of the namespace that has the binding."""
    body = _refused(ran, "404")
    must(
        NAMESPACE not in json.dumps(body).replace(POD_IDENTITY, ""),
        "the answer names the other namespace",
    )
    return f"404: {body['error_description']}"


async def log_says_why(_context: StoryContext, ran: Ran) -> str:
    why = "must be in the same namespace"
    must(why in " ".join(ran.output.split()), f"no reason: {ran.output[-300:]}")
    return f"the application and its AzureIdentity {why}"


async def explained(context: StoryContext, ran: Ran) -> str:
    must("you need the right" not in ran.output, "whoever asks lacks a right")
    return await log_says_why(context, ran)


async def forged(_context: StoryContext, ran: Ran) -> str:
    """No conversation came about: what the forger sends goes no further than its port."""
    last = ran.output.strip().splitlines()[-1]
    must(last.startswith("no answer: "), f"the forger was answered: {last[:300]}")
    return "no answer: its frames go no further than its port of the bridge"


async def not_permitted(_context: StoryContext, ran: Ran) -> str:
    body = _refused(ran, "403")
    must("may not use the identity" in body.get("error_description", ""), f"no reason: {body}")
    return f"403 {body['error']}: nobody granted it to namespace tenant"


async def only_one_is_permitted(_context: StoryContext, ran: Ran) -> str:
    """The same identity: granted to the one namespace, not to the other."""
    listed = {each["namespace"]: each for each in json.loads(ran.output)["identities"]}
    mine, theirs = listed["tenant"], listed[NAMESPACE]
    must(mine["clientID"] == theirs["clientID"], "they name different identities")
    must(theirs["permitted"] == ["*"], f"its owner is permitted {theirs['permitted']}")
    must(mine["permitted"] == [], f"the tenant is permitted {mine['permitted']}")
    return "one identity, two AzureIdentities; granted to its owner only"


async def fails_closed(context: StoryContext, ran: Ran) -> str:
    """No answer, neither by NMI nor by IMDS."""
    must("access_token" not in ran.output, "a token was handed out while NMI was away")
    must("000 from curl 7" in ran.output, f"not a refused connection: {ran.output[:200]}")
    async with AzureOperator(context.plan) as azure:
        seen = [
            each for each in await azure.imds_requests() if each["source"].startswith("10.244.")
        ]
    must(len(seen) == 1, f"{len(seen)} requests of pods reached IMDS, not just that of step 18")
    return "connection refused; IMDS never saw the request"


async def token_again(_context: StoryContext, ran: Ran) -> str:
    must(ran.output == "Bearer", f"answered {ran.output[:200]!r}")
    return "a token"


# ---- Steps with the real az and kubectl


def _document(ran: Ran) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON that a command printed among its warnings."""
    start = re.search(r"^[\[{]", ran.output, re.MULTILINE)
    return json.JSONDecoder().raw_decode(ran.output, start.start() if start else 0)[0]


def _must_be_attached(context: StoryContext, identity: Mapping[str, Any]) -> None:
    attached = [key.lower() for key in identity["userAssignedIdentities"]]
    wanted = context.notes["identity id"].lower()
    must(wanted in attached, "the identity is not on the nodes' scale set")


async def registered(_context: StoryContext, ran: Ran) -> str:
    state = _document(ran)["properties"]["state"]
    must(state in {"Registered", "Registering"}, f"state {state}")
    return str(state)


async def role_assigned(_context: StoryContext, ran: Ran) -> str:
    must(" assigned at /subscriptions/" in ran.output, f"no role was assigned: {ran.output[:300]}")
    return ran.output.partition(" assigned")[0]


async def colleague_signed_in(context: StoryContext, ran: Ran) -> str:
    """The colleague has the role, and az shows the subscription."""
    role = await role_assigned(context, ran)
    shown = ran.output.splitlines()[-1]
    must(shown == context.plan.subscription_name, f"az is signed in to {shown!r}")
    return role


async def enabled(_context: StoryContext, ran: Ran) -> str:
    cluster = _document(ran)
    must(cluster["podIdentityProfile"]["enabled"] is True, "podIdentityProfile is not enabled")
    must(cluster["provisioningState"] == "Succeeded", cluster["provisioningState"])
    return "podIdentityProfile.enabled is true"


async def made(_context: StoryContext, ran: Ran) -> str:
    found = _document(ran)
    state = found["properties"]["provisioningState"]
    must(state == "Succeeded", f"provisioningState {state}")
    return f"{found['name']} made"


async def vault_made(_context: StoryContext, ran: Ran) -> str:
    found = _document(ran)["properties"]
    must(found["enableRbacAuthorization"] is False, "it decides by roles")
    must(len(found["accessPolicies"]) == 1, "the operator's policy is not there")
    return str(found["vaultUri"])


async def secret_kept(_context: StoryContext, ran: Ran) -> str:
    found = _document(ran)
    must(found["value"] == SECRET_VALUE, f"value {found['value']!r}")
    return str(found["id"])


async def identity_made(context: StoryContext, ran: Ran) -> str:
    """An identity; later steps compare its ids."""
    found = _document(ran)
    context.notes["client id"] = found["clientId"].lower()
    context.notes["identity id"] = found["id"]
    context.notes["principal id"] = found["principalId"]
    return f"client id {found['clientId']}"


async def account_made(_context: StoryContext, ran: Ran) -> str:
    found = _document(ran)
    must(found["provisioningState"] == "Succeeded", found["provisioningState"])
    got = (found["kind"], found["sku"]["name"], found["accessTier"])
    must(got == ("StorageV2", "Standard_LRS", "Hot"), f"made as {got}")
    must(found["enableHttpsTrafficOnly"] is True, "it is served without TLS")
    return str(found["primaryEndpoints"]["blob"])


async def container_made(_context: StoryContext, ran: Ran) -> str:
    must(_document(ran)["created"] is True, "created is not true")
    return "created"


async def made_before(_context: StoryContext, ran: Ran) -> str:
    """Everything may be said again, but a vault is made once; the container was there."""
    wanted = ("Succeeded", "already exists", SECRET_VALUE, f"{POD_IDENTITY}-identity", "false")
    lacking = [word for word in wanted if word not in ran.output]
    must(not lacking, f"did not say {', '.join(lacking)}: {ran.output[:300]}")
    must(ran.output.count("Succeeded") == 2, "group and account are not both there as before")
    return "as before; the vault already exists; the container was there"


async def may_read_the_vault(context: StoryContext, ran: Ran) -> str:
    policies = _document(ran)["properties"]["accessPolicies"]
    mine = [each for each in policies if each["objectId"] == context.notes["principal id"]]
    must(len(mine) == 1, f"{len(mine)} policies of the identity's principal")
    granted = {key: mine[0]["permissions"][key] for key in ("secrets", "keys", "certificates")}
    must(set(map(str, granted.values())) == {"['get']"}, f"granted {granted}")
    return "get for secrets, keys and certificates"


async def role_given(context: StoryContext, ran: Ran) -> str:
    found = _document(ran)
    must(found["principalId"] == context.notes["principal id"], found["principalId"])
    return f"on {found['scope'].rpartition('/')[2]}"


async def pod_identity_added(context: StoryContext, ran: Ran) -> str:
    (found,) = _document(ran)["podIdentityProfile"]["userAssignedIdentities"]
    got = (found["name"], found["namespace"], found["provisioningState"])
    must(got == (POD_IDENTITY, NAMESPACE, "Assigned"), f"listed as {got}")
    must(found["identity"]["clientId"].lower() == context.notes["client id"], "another identity")
    return f"{POD_IDENTITY} in {NAMESPACE}: Assigned"


async def identity_and_binding(context: StoryContext, ran: Ran) -> str:
    kinds = {each["kind"]: each for each in _document(ran)["items"]}
    identity, binding = kinds["AzureIdentity"], kinds["AzureIdentityBinding"]
    names = (identity["metadata"]["name"], binding["metadata"]["name"])
    must(names == (POD_IDENTITY, f"{POD_IDENTITY}-binding"), f"named {names}")
    spec = identity["spec"]
    must(spec["clientID"].lower() == context.notes["client id"], spec["clientID"])
    must(spec["resourceID"].lower() == context.notes["identity id"].lower(), spec["resourceID"])
    must(spec.get("type", 0) == 0, f"type {spec.get('type')}")
    bound = (binding["spec"]["azureIdentity"], binding["spec"]["selector"])
    must(bound == (POD_IDENTITY, POD_IDENTITY), f"bound {bound}")
    return " and ".join(names)


async def on_the_scale_set(context: StoryContext, ran: Ran) -> str:
    _must_be_attached(context, _document(ran))
    return "the nodes have the identity"


async def off_the_scale_set(context: StoryContext, ran: Ran) -> str:
    """The identity is detached, and the nodes keep what was theirs."""
    attached = [key.lower() for key in _document(ran)["userAssignedIdentities"]]
    must(context.notes["identity id"].lower() not in attached, "it is still on the scale set")
    must(attached, "the kubelet's identity was taken off with it")
    return "detached; the nodes keep their own"


async def cluster_may_use_it(context: StoryContext, ran: Ran) -> str:
    """Managed Identity Operator is granted, and not to the identity itself."""
    must("Managed Identity Operator" in ran.output, f"not granted: {ran.output[:200]}")
    must(context.notes["principal id"] not in ran.output, "granted to the identity itself")
    return "Managed Identity Operator, to the cluster's identity"


async def running(_context: StoryContext, ran: Ran) -> str:
    must(re.search(r"\b1/1\s+Running\b", ran.output), f"not running: {ran.output[-200:]}")
    return "1/1 Running"


async def signed_in_as_the_identity(context: StoryContext, ran: Ran) -> str:
    (found,) = _document(ran)
    must(found["name"] == context.plan.subscription_name, found["name"])
    must(found["user"]["assignedIdentityInfo"] == "MSI", f"as {found['user']}")
    return f"{found['name']}, as a managed identity"


async def uploaded(_context: StoryContext, ran: Ran) -> str:
    return f"etag {_document(ran)['etag']}"


async def in_the_container(_context: StoryContext, ran: Ran) -> str:
    must("identity-demo.txt" in ran.output.splitlines(), f"lists {ran.output[:200]!r}")
    return "identity-demo.txt"


async def pod_identity_deleted(_context: StoryContext, ran: Ran) -> str:
    profile = _document(ran)["podIdentityProfile"]
    must(profile["enabled"] is True, "pod identity was switched off")
    must(not profile.get("userAssignedIdentities"), "it is still listed")
    return "listed no more"


async def objects_gone(_context: StoryContext, ran: Ran) -> str:
    must("No resources found" in ran.output, f"still there: {ran.output[:200]}")
    return "gone"


async def refused_again(_context: StoryContext, ran: Ran) -> str:
    must("access_token" not in ran.output, "a token was handed out")
    status = ran.output.split()[-1:]
    must(status == ["404"], f"status {status}: {ran.output[:200]}")
    return "404: nothing binds the pod any more"


FAILING: Mapping[Check, int] = {names_a_right: 1, explained: 1, forged: 1, fails_closed: 7}
"""Of the checks whose command must fail, its exit status."""
