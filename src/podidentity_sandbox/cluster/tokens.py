"""The cluster's own key, and the service-account tokens that it signs.

A federated credential that trusts the cluster as an issuer reads its key from the discovery
documents, as OpenID Connect has it:
https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from podidentity_sandbox.cluster import Obj, objects, status
from podidentity_sandbox.cluster.storage import Record, Storage, field_of
from podidentity_sandbox.plan import ISSUER, JWKS_PATH

CONFIGURATION_PATH = "/.well-known/openid-configuration"
ALGORITHM = "RS256"
_REMEMBERED = 1024
"""Tokens of which it is remembered that we have signed them."""


def load_key(path: Path) -> rsa.RSAPrivateKey:
    """Return the key in that file, made there if there is none; readable by its owner only."""
    if not path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    # It is one that we made; to check it again would take most of a start of the API server.
    loaded = serialization.load_pem_private_key(
        path.read_bytes(), None, unsafe_skip_rsa_key_validation=True
    )
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise TypeError(f"{path} holds no RSA key; remove it to have a new one made")
    return loaded


class TokenIssuer:
    """Signs tokens, and knows its own again."""

    def __init__(
        self, key: rsa.RSAPrivateKey, now: Callable[[], datetime], issuer: str = ISSUER
    ) -> None:
        self.issuer = issuer
        self._key = key
        self._public = key.public_key()
        self.now = now
        spki = self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        # As kube-apiserver names its keys: the digest of the public key.
        digest = hashlib.sha256(spki).digest()
        self._key_id = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        # A signature that holds will always hold; what changes with time is asked each time.
        self._signed = lru_cache(_REMEMBERED)(self._verified)

    def issue(
        self,
        account: Record,
        pod: Record | None,
        node: Record | None,
        *,
        audiences: Sequence[str],
        seconds: int,
    ) -> tuple[str, datetime]:
        """Return a token that lives so many seconds, and when it ends; bound to what is given."""
        issued = int(self.now().timestamp())
        bound = {"serviceaccount": account, "pod": pod, "node": node}
        claims = {
            "aud": list(audiences),
            "exp": issued + seconds,
            "iat": issued,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": account.namespace,
                **{key: {"name": r.name, "uid": r.uid} for key, r in bound.items() if r},
            },
            "nbf": issued,
            "sub": f"system:serviceaccount:{account.namespace}:{account.name}",
        }
        headers = {"kid": self._key_id}
        token = jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=headers)
        return token, datetime.fromtimestamp(issued + seconds, tz=self.now().tzinfo)

    def claims(self, token: str, audiences: Sequence[str]) -> dict[str, Any] | None:
        """Return the claims of a token of ours that holds now for one of the audiences."""
        try:
            claims = self._signed(token, tuple(audiences))
        except jwt.InvalidTokenError:
            return None
        return claims if claims["nbf"] <= self.now().timestamp() < claims["exp"] else None

    def _verified(self, token: str, audiences: tuple[str, ...]) -> dict[str, Any]:
        """Return the claims of a token of ours; raise jwt.InvalidTokenError."""
        claims: dict[str, Any] = jwt.decode(
            token,
            self._public,
            algorithms=[ALGORITHM],
            audience=audiences,
            issuer=self.issuer,
            options={
                "verify_exp": False,  # by our clock
                "verify_nbf": False,
                "verify_iat": False,
                "require": ["exp", "nbf", "sub", "kubernetes.io"],
            },
        )
        return claims

    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "jwks_uri": self.issuer + JWKS_PATH,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        }

    def keys(self) -> dict[str, Any]:
        """Return the JSON Web Key Set of the public key."""
        key = RSAAlgorithm.to_jwk(self._public, as_dict=True)
        del key["key_ops"]
        return {"keys": [{"use": "sig", "kid": self._key_id, "alg": ALGORITHM, **key}]}


# ---- TokenRequest: a client asks for a token of a service account, bound to a pod if it likes.
#
# https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/

GROUP = "authentication.k8s.io"
LEAST_SECONDS = 600
DEFAULT_SECONDS = 3600
MOST_SECONDS = 24 * 3600
"""AKS's limit; a longer wish is shortened to it."""


def request_token(
    storage: Storage, issuer: TokenIssuer, audiences: Sequence[str], account: Record, body: Obj
) -> Obj:
    """Return the answer to a TokenRequest; raise 400, 404, 409 or 422."""
    spec = body.get("spec") or {}
    seconds = spec.get("expirationSeconds")
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    if not LEAST_SECONDS <= seconds <= 2**32:
        bound = "less than 10 minutes" if seconds < LEAST_SECONDS else "larger than 2^32 seconds"
        detail = f"may not specify a duration {bound}"
        fault = status.invalid("spec.expirationSeconds", seconds, detail)
        raise status.invalid_object("TokenRequest", GROUP, "", [fault])
    wanted = spec.get("audiences") or list(audiences)
    reference = spec.get("boundObjectRef")
    pod = _bound_pod(storage, account, reference) if reference else None
    node = storage.get("nodes", "", field_of(pod.object, "spec.nodeName") or "") if pod else None
    seconds_of_life = min(seconds, MOST_SECONDS)
    token, ends = issuer.issue(account, pod, node, audiences=wanted, seconds=seconds_of_life)
    return {
        "kind": "TokenRequest",
        "apiVersion": f"{GROUP}/v1",
        "metadata": {
            "name": account.name,
            "namespace": account.namespace,
            "creationTimestamp": objects.stamp(issuer.now()),
        },
        "spec": {"audiences": wanted, "expirationSeconds": seconds, "boundObjectRef": reference},
        "status": {"token": token, "expirationTimestamp": objects.stamp(ends)},
    }


def _bound_pod(storage: Storage, account: Record, reference: Obj) -> Record:
    """Return the pod that the token is bound to; errors are those of the real token.go."""
    kind, name = reference.get("kind"), reference.get("name", "")
    if kind != "Pod" or reference.get("apiVersion", "v1") != "v1":
        where = f"{reference.get('apiVersion', '')}, Kind={kind}"
        raise status.bad_request(f"cannot bind token to object of type {where}")
    pod = storage.get("pods", account.namespace, name)
    if pod is None:
        raise status.not_found("pods", "", name)
    if field_of(pod.object, "spec.serviceAccountName") != account.name:
        raise status.bad_request(
            f'cannot bind token for serviceaccount "{account.name}" to pod running with '
            "different serviceaccount name."
        )
    uid = reference.get("uid")
    if uid and uid != pod.uid:
        raise status.conflict(kind, "", name, anew(uid))
    return pod


def anew(uid: str) -> str:
    """Return the words for a reference to an object that is another one now."""
    return (
        f"the UID in the bound object reference ({uid}) does not match the UID in record. "
        "The object might have been deleted and then recreated"
    )
