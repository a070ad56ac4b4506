"""What the API server says of the permissions that a pod needs, asked as who is at the shell."""

from __future__ import annotations

from podidentity.adapters.kube import Kube, KubeError
from podidentity.cli.chain import Fact, Permissions, State
from podidentity.core.entitlements import Match
from podidentity.core.permission import Authorization, Use, uses_of
from podidentity.wire.reviews import PATH, Undecided, parse_review, review


async def permissions_of(kube: Kube, match: Match, authorization: Authorization) -> Permissions:
    """Return what is known of each permission that the pod's identities need."""
    uses = {use for each in match.entitlements for use in uses_of(match.pod, each)}
    return {use: await _fact(kube, use, authorization) for use in uses}


async def _fact(kube: Kube, use: Use, authorization: Authorization) -> Fact:
    who = f"service account {use.service_account}"
    if authorization is Authorization.OFF:
        return Fact(State.UNKNOWN, f"nobody asks for that of {who}: NMI has --authorization=off")
    try:
        allowed = parse_review(await kube.create(PATH, review(use)))
    except Undecided as error:
        return Fact(State.UNKNOWN, str(error))
    except KubeError as error:
        if not error.forbidden:
            raise
        return Fact(State.UNKNOWN, f"you may not ask whether {who} may use {use.name}")
    if allowed:
        return Fact(State.HOLDS, f"{who} may use {use.name}")
    if authorization is Authorization.OBSERVE:
        told = "NMI tells it only, by --authorization=observe"
        return Fact(State.UNKNOWN, f"{who} may not use {use.name}; {told}")
    return Fact(State.BROKEN, f"{who} may not use {use.name}")
