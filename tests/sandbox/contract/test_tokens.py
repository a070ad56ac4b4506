"""Service-account tokens, as a federated credential's owner and the API server itself see them.

https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from podidentity_sandbox.cluster.storage import Record
from podidentity_sandbox.cluster.tokens import TokenIssuer
from tests.sandbox.cluster.conftest import PODS, TOKEN, Client, bound_to, check_refusal, pod
from tests.sandbox.contract.conftest import Judged, until

AUDIENCE = "api://AzureADTokenExchange"
ACCOUNT = Record({"metadata": {"name": "web", "namespace": "shop", "uid": "uid-1"}}, b"", 1)


async def ask(api: Client, **spec: Any) -> httpx2.Response:
    return await api.post(TOKEN, json={"spec": spec})


async def test_a_stranger_verifies_a_token_by_the_published_keys(
    api: Client, served: Judged
) -> None:
    await api.post("/api/v1/nodes", json={"metadata": {"name": "node-0"}})
    made = (await api.post(PODS, json=pod(nodeName="node-0"))).json()
    wish = {"audiences": [AUDIENCE], "expirationSeconds": 3600}
    answer = await api.post(TOKEN, json=bound_to(made["metadata"], **wish))
    assert answer.status_code == 201
    token = answer.json()["status"]["token"]
    async with served.client("") as anybody:
        document = (await anybody.get("/.well-known/openid-configuration")).json()
        keys = jwt.PyJWKSet.from_dict((await anybody.get("/openid/v1/jwks")).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    issuer = document["issuer"]
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=issuer)
    assert document["jwks_uri"] == f"{issuer}/openid/v1/jwks"
    assert claims["sub"] == "system:serviceaccount:default:default"
    assert claims["exp"] - claims["iat"] == 3600
    private = claims["kubernetes.io"]
    assert private["namespace"] == "default"
    assert private["pod"] == {"name": "a", "uid": made["metadata"]["uid"]}
    assert private["node"]["name"] == "node-0"
    assert private["serviceaccount"]["name"] == "default"


async def test_a_token_for_somebody_else_is_not_taken_here(api: Client, served: Judged) -> None:
    token = (await ask(api, audiences=[AUDIENCE])).json()["status"]["token"]
    async with served.client(token) as client:
        assert (await client.get("/apis")).status_code == 401


async def test_a_bound_token_ends_with_its_pod(api: Client, served: Judged) -> None:
    made = (await api.post(PODS, json=pod())).json()
    answer = await api.post(TOKEN, json=bound_to(made["metadata"]))
    async with served.client(answer.json()["status"]["token"]) as client:
        assert (await client.get("/apis")).status_code == 200
        await api.delete(f"{PODS}/a")
        await until(client, "/apis", 401)  # a real server remembers for 10 s whose a token is


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ({"expirationSeconds": "x"}, 400, "cannot be handled as a TokenRequest"),
        ({"boundObjectRef": [1]}, 400, "cannot be handled as a TokenRequest"),
        ({"expirationSeconds": 2**33}, 422, "may not specify a duration larger than 2^32 seconds"),
        ({"boundObjectRef": {"kind": "Thing", "name": "a"}}, 400, "cannot bind token to object"),
        (
            {"boundObjectRef": {"kind": "Pod", "name": "a", "uid": "old"}},
            409,
            "the UID in the bound object reference (old) does not match the UID in record",
        ),
        (
            {"boundObjectRef": {"kind": "Pod", "name": "b"}},
            400,
            'cannot bind token for serviceaccount "default" to pod running with different',
        ),
    ],
)
async def test_a_wish_that_cannot_be_granted_is_refused(
    api: Client, spec: dict[str, Any], code: int, says: str
) -> None:
    await api.post(PODS, json=pod())
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.post(accounts, json={"metadata": {"name": "other"}})
    await api.post(PODS, json=pod("b", serviceAccountName="other"))
    check_refusal(await ask(api, **spec), code, says)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_a_token_holds_from_its_issue_to_its_end(key: rsa.RSAPrivateKey) -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    issuer = TokenIssuer(key, lambda: now)
    token, ends = issuer.issue(ACCOUNT, None, None, audiences=[AUDIENCE], seconds=600)
    assert ends == now + timedelta(minutes=10)
    assert issuer.claims(token, [AUDIENCE]) is not None
    assert TokenIssuer(key, lambda: ends).claims(token, [AUDIENCE]) is None
    before = TokenIssuer(key, lambda: now - timedelta(seconds=1))
    assert before.claims(token, [AUDIENCE]) is None


def test_another_key_or_issuer_or_a_changed_token_does_not_hold(key: rsa.RSAPrivateKey) -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    issuer = TokenIssuer(key, lambda: now)
    token, _ = issuer.issue(ACCOUNT, None, None, audiences=[AUDIENCE], seconds=600)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert TokenIssuer(other, lambda: now).claims(token, [AUDIENCE]) is None
    elsewhere = TokenIssuer(key, lambda: now, "https://elsewhere")
    assert elsewhere.claims(token, [AUDIENCE]) is None
    head, body, signature = token.split(".")
    flipped = ("B" if signature[10] == "A" else "A").join((signature[:10], signature[11:]))
    assert issuer.claims(f"{head}.{body}.{flipped}", [AUDIENCE]) is None
    unsigned = jwt.encode(jwt.decode(token, options={"verify_signature": False}), "", "none")
    assert issuer.claims(unsigned, [AUDIENCE]) is None
