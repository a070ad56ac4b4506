"""What each step of the story must show; see `story` for how a judgement speaks."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import SECRET_VALUE
from podidentity_sandbox.demo.shell import Ran
from podidentity_sandbox.demo.story import Stage, exited, expecting, inside, must


async def succeeded(_stage: Stage, ran: Ran) -> str:
    """The command ended well."""
    exited(ran)
    return (ran.output.strip().splitlines() or ["done"])[-1]


async def created(_stage: Stage, ran: Ran) -> str:
    """Every object was created."""
    exited(ran)
    must("created" in ran.output, f"nothing was created: {ran.output[:200]}")
    return "created"


async def prepared(stage: Stage, ran: Ran) -> str:
    """The story's identity is there; later steps are judged by its ids."""
    exited(ran)
    with expecting("two ids were expected"):
        stage.notes["client id"], stage.notes["identity id"] = ran.output.split()
    return stage.notes["client id"]


def _answer(ran: Ran) -> tuple[dict[str, Any], list[str]]:
    """Return the JSON answer and the words that curl's --write-out put after it."""
    with expecting(f"not the JSON of an IMDS answer ({ran.output[:120]!r})"):
        body, end = json.JSONDecoder().raw_decode(ran.output)
        return body, ran.output[end:].split()


def _claims(token: str) -> dict[str, Any]:
    with expecting("no JWT"):
        payload = token.split(".")[1]
        decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
        return decoded


async def leaks(stage: Stage, ran: Ran) -> str:
    """The pod has a token of the node's own identity: the sandbox's IMDS is as open as Azure's."""
    exited(ran)
    body, _ = _answer(ran)
    with expecting("no token of the node's identity, so the sandbox would not show a leak"):
        token = _claims(body["access_token"])
    stage.notes["node identity"] = token["appid"]
    return f"a token of {token['appid']}, the node's identity: this is the hole"


async def one_nmi_a_node(stage: Stage, ran: Ran) -> str:
    """A Running pod a node, both of its containers ready."""
    exited(ran)
    lines = ran.output.splitlines()
    running = [line for line in lines if re.search(r"\b2/2\s+Running\b", line)]
    must(
        len(lines) == len(running) == len(stage.plan.nodes),
        f"{len(running)} of {len(lines)} NMI pods run on {len(stage.plan.nodes)} nodes",
    )
    return f"{len(running)} of {len(stage.plan.nodes)} nodes"


async def identity_not_found(_stage: Stage, ran: Ran) -> str:
    """400 in the words of IMDS, at once."""
    exited(ran)
    body, (status, seconds) = _answer(ran)
    must(status == "400", f"status {status}, not 400")
    must(body.get("error_description") == "Identity not found", f"answered {body}")
    must(float(seconds) < 1, f"took {seconds} s: it must not wait")
    return f"400 Identity not found, in {float(seconds) * 1000:.0f} ms"


async def ids_of_the_identity(stage: Stage, ran: Ran) -> str:
    """Both ids are there, and they are those of the story's identity."""
    exited(ran)
    with expecting("two ids were expected"):
        resource_id, client_id = ran.output.split()
    must(client_id.lower() == stage.notes["client id"], f"client id {client_id}")
    must(resource_id.lower() == stage.notes["identity id"].lower(), f"resource id {resource_id}")
    return client_id


async def identity_added(stage: Stage, ran: Ran) -> str:
    """AzureIdentity and binding are there, and the scale set has the identity."""
    exited(ran)
    async with AzureOperator(stage.plan) as azure:
        scale_set = await azure.arm("GET", stage.plan.scale_set_id)
    attached = [key.lower() for key in scale_set["identity"]["userAssignedIdentities"]]
    must(
        stage.notes["identity id"].lower() in attached,
        "the identity is not on the nodes' scale set",
    )
    return "AzureIdentity and AzureIdentityBinding made, identity on the scale set"


async def opens_shell(stage: Stage, ran: Ran) -> str:
    """It is the pod's own world, and nothing in its environment is secret."""
    exited(ran)
    namespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
    where = await inside(stage).run(f"hostname; cat {namespace}")
    must(where.output.split() == ["identity-demo"] * 2, f"inside is {where.output!r}")
    secrets = await inside(stage).run("env | grep -ciE 'secret=|password|^AZURE_'")
    must(secrets.output.strip() == "0", "the pod's environment holds a secret")
    return "open; the pod's environment holds no secret"


async def token_of_the_identity(stage: Stage, ran: Ran) -> str:
    """The exported token is a JWT of the identity; it is not shown."""
    exited(ran)
    claims = _claims((await inside(stage).run('printf %s "$token"')).output)
    must(claims.get("appid") == stage.notes["client id"], f"a token of {claims.get('appid')}")
    must(claims.get("aud") == "https://vault.azure.net", f"for audience {claims.get('aud')}")
    hours = (claims["exp"] - time.time()) / 3600
    return f"a JWT of {claims['appid']} for {claims['aud']}, valid {hours:.1f} h (not shown)"


async def secret(_stage: Stage, ran: Ran) -> str:
    """The secret of the story."""
    exited(ran)
    must(ran.output == SECRET_VALUE, f"the vault answered {ran.output[:200]!r}")
    return "the secret, read without any secret in the pod"


async def vault_refuses(_stage: Stage, ran: Ran) -> str:
    """403 by the vault itself."""
    body, (status,) = _answer(ran)
    must(status == "403", f"status {status}, not 403: {body}")
    with expecting("not an error of Key Vault"):
        return f"403 {body['error']['code']} by the vault: the token is not a master key"


async def log_names_everything(_stage: Stage, ran: Ran) -> str:
    """One line has pod, namespace, identity, resource, status and time taken."""
    exited(ran)
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


async def refused_elsewhere(_stage: Stage, ran: Ran) -> str:
    """No token, and no word of the namespace that has the binding."""
    body, (status,) = _answer(ran)
    must(status == "404", f"status {status}, not 404: {body}")
    must("access_token" not in body, "a token was handed out")
    must(
        "identity-demo" not in json.dumps(body).replace("aad-pod-identity-demo", ""),
        "the answer names the other namespace",
    )
    return f"404: {body['error_description']}"


async def explained(_stage: Stage, ran: Ran) -> str:
    """The reason in words."""
    exited(ran, 1)
    why = "must be in the same namespace"
    must(why in " ".join(ran.output.split()), f"no reason: {ran.output[-300:]}")
    return "the application and its AzureIdentity must be in the same namespace"


async def forged(_stage: Stage, ran: Ran) -> str:
    """No conversation came about: what the forger sends goes no further than its port."""
    exited(ran, 1)
    last = ran.output.strip().splitlines()[-1]
    must(last.startswith("no answer: "), f"the forger was answered: {last[:300]}")
    return "no answer: its frames go no further than its port of the bridge"


async def not_permitted(_stage: Stage, ran: Ran) -> str:
    """403, with the reason."""
    body, (status,) = _answer(ran)
    must(status == "403", f"status {status}, not 403: {body}")
    must("access_token" not in body, "a token was handed out")
    why = "may not use the identity"
    must(why in body.get("error_description", ""), f"no reason: {body}")
    return f"403 {body['error']}: nobody granted it to namespace tenant"


async def only_one_is_permitted(_stage: Stage, ran: Ran) -> str:
    """The same identity: granted to the one namespace, not to the other."""
    exited(ran)
    with expecting("not a list of identities"):
        listed = {each["namespace"]: each for each in json.loads(ran.output)["identities"]}
        mine, theirs = listed["tenant"], listed["identity-demo"]
        must(mine["clientID"] == theirs["clientID"], "they name different identities")
        must(theirs["permitted"] == ["*"], f"its owner is permitted {theirs['permitted']}")
        must(mine["permitted"] == [], f"the tenant is permitted {mine['permitted']}")
    return "one identity, two AzureIdentities; granted to its owner only"


async def fails_closed(stage: Stage, ran: Ran) -> str:
    """No answer, neither by NMI nor by IMDS."""
    must("access_token" not in ran.output, "a token was handed out while NMI was away")
    must("000 from curl 7" in ran.output, f"not a refused connection: {ran.output[:200]}")
    async with AzureOperator(stage.plan) as azure:
        seen = [
            each for each in await azure.imds_requests() if each["source"].startswith("10.244.")
        ]
    must(len(seen) == 1, f"{len(seen)} requests of pods reached IMDS, not just that of step 18")
    return "connection refused; IMDS never saw the request"


async def token_again(_stage: Stage, ran: Ran) -> str:
    """It works again."""
    exited(ran)
    must(ran.output == "Bearer", f"answered {ran.output[:200]!r}")
    return "a token"
