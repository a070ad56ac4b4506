"""What comes of it where the rules allow: tokens, metadata, and what Entra and IMDS say."""

from __future__ import annotations

from podidentity.core.errors import (
    CredentialUnknown,
    IdentityNotAttached,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
)
from podidentity.nmi.request.decision import DecisionPolicy
from tests.fakes import RESOURCE_ID, VAULT, binding, identity
from tests.nmi.golden.rules import HASTY, LONG_AGO, MOUNTS, host
from tests.nmi.golden.situation import Situation, asking

BOUND = (LONG_AGO, identity(), binding())
SITUATIONS: dict[str, Situation] = {
    "a token": Situation(),
    "a token, by resource id": Situation(target=asking(mi_res_id=RESOURCE_ID)),
    "a token, the resource with a slash": Situation(
        target=f"//metadata/identity/oauth2/token?resource={VAULT}%2F"
    ),
    "IMDS refuses": Situation(
        fails=TokenRefused("IMDS: resource is invalid", status=400, error="invalid_resource"),
        why="TokenRefused",
    ),
    "IMDS does not know the identity": Situation(
        objects=BOUND,
        policy=HASTY,
        fails=IdentityNotAttached("IMDS: Identity not found", status=400, error="invalid_request"),
        why="IdentityNotAttached",
    ),
    "Entra refuses": Situation(
        fails=TokenRefused(
            "https://login.microsoftonline.com: AADSTS7000215: Invalid client secret provided.",
            status=401,
            error="invalid_client",
        ),
        why="TokenRefused",
    ),
    "Entra does not know the federated credential": Situation(
        objects=BOUND,
        policy=DecisionPolicy(),
        fails=CredentialUnknown(
            "https://login.microsoftonline.com: AADSTS70021: No matching federated identity "
            "record found for presented assertion.",
            status=401,
            error="invalid_client",
        ),
        why="CredentialUnknown",
    ),
    "a secret that is not there": Situation(
        objects=BOUND,
        policy=HASTY,
        fails=CredentialUnknown(
            "Secret orders does not exist, or cannot be read", status=401, error="invalid_client"
        ),
        why="CredentialUnknown",
    ),
    "a secret without its key": Situation(
        fails=TokenRefused(
            "Secret orders cannot be used: it has no key clientSecret, only: a, b.",
            status=401,
            error="invalid_client",
        ),
        why="TokenRefused",
    ),
    "IMDS or Entra asks to slow down": Situation(
        fails=TokenThrottled("IMDS: Too many requests", retry_after=7), why="TokenThrottled"
    ),
    "IMDS or Entra is away": Situation(
        fails=TokenSourceDown("IMDS did not answer within 10 s"), why="TokenSourceDown"
    ),
    "metadata that is passed on": Situation(target="/metadata/instance?api-version=2021-02-01"),
    "host: a token": host(MOUNTS, identity(), binding()),
}
