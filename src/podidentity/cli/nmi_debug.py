"""What NMI of one node knows (`/debug`), asked through the API server as one who may read it.

The person's own credentials stay with the API server, whose proxy to pods hands out none of them.
What is sent on is a token of the account `podidentity-debug-reader`, for NMI of this node alone and
for ten minutes: who stands in NMI's place could do no more with it than ask that NMI.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from podidentity.adapters.kube import Kube
from podidentity.cli.objects import Object
from podidentity.core.resources import ObjectRef
from podidentity.manifests import DEBUG_READER
from podidentity.wire.debug_access import FIELD, PATH, SECONDS, audience_of
from podidentity.wire.kube import PODS, KubeError
from podidentity.wire.service_account_tokens import (
    parse_token_request,
    render_token_request,
    token_path,
)

_NONE = f"its NMI has no {PATH} for callers from elsewhere: it has no --metrics-secure-port"
_WHY: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "NMI does not take the token that the API server made for it",
    HTTPStatus.FORBIDDEN: f"account {DEBUG_READER} may not get {PATH}: run podidentity enable",
    HTTPStatus.NOT_FOUND: f"its NMI does not know the pod, or is of a version without {PATH}",
    HTTPStatus.TOO_MANY_REQUESTS: "NMI was asked with too many tokens; try again in a moment",
    HTTPStatus.SERVICE_UNAVAILABLE: "NMI cannot ask the API server whose the token is",
}


class NotTold(Exception):
    """NMI does not say what it knows; the message is the reason."""


async def read_debug(kube: Kube, pod: Object, port: int, about: ObjectRef | None = None) -> bytes:
    """Return what NMI of this pod says; raise KubeError, and NotTold where it says nothing.

    It says all that it knows, or what it knows `about` one pod of its node.

    `port` is that of `--metrics-secure-port`. Another program at that port of the node may have
    written the answer: it is to be shown, and decides nothing.
    """
    if not port:
        raise NotTold(_NONE)
    meta, node = pod["metadata"], pod["spec"].get("nodeName", "")
    asked = render_token_request(audience_of(node), None, seconds=SECONDS)
    account = ObjectRef(meta["namespace"], DEBUG_READER)
    try:
        token = parse_token_request(await kube.create(token_path(account), asked))
    except KubeError as error:
        if error.not_found:
            raise NotTold(f"there is no account {account}: run podidentity enable") from error
        raise
    except ValueError as error:
        raise NotTold(str(error)) from error
    path = PODS.path(meta["namespace"], f"https:{meta['name']}:{port}")
    query = f"?pod={about}" if about else ""
    said = await kube.asked_of_pod(f"{path}/proxy{PATH}{query}", {FIELD: f"Bearer {token.text}"})
    if said.status != HTTPStatus.OK:
        raise NotTold(_WHY.get(said.status, f"NMI answered {said.status}"))
    return said.body
