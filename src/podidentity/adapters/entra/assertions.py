"""Assertions that others sign: the cluster for its service accounts, IMDS for its identities.

Each is kept for most of its life, under exactly what it was asked for: the service account, the
pod that it is bound to, and the audience.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from podidentity.core.errors import NotYetKnown, TokenRefused, TokenSourceDown, TokenUnavailable
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock, TokenIssuer
from podidentity.core.resources import AzureIdentity, Pod
from podidentity.core.tokens import Grant
from podidentity.wire.kube import KubeApi, KubeError
from podidentity.wire.service_account_tokens import (
    Minted,
    parse_token_request,
    render_token_request,
    token_path,
)

MOST = 1000
"""Assertions that are kept."""
SHARE = 0.8
"""Of its life that one is used for: Entra must still find it valid when it gets there."""


class Assertions:
    """Mints assertions and keeps them."""

    def __init__(self, server: KubeApi, imds: TokenIssuer, clock: Clock) -> None:
        self._server = server
        self._imds = imds
        self._clock = clock
        self._kept: OrderedDict[object, tuple[str, float]] = OrderedDict()

    async def of_account(self, account: ObjectRef, audience: str, pod: Pod | None) -> str:
        """Return a service account's token, bound to `pod`; raise a TokenUnavailable."""
        key = (account, audience, pod.uid if pod else "")
        return await self._kept_or(key, lambda: self._requested(account, audience, pod))

    async def of_identity(self, identity: AzureIdentity, audience: str, pod: Pod) -> str:
        """Return the token of a managed identity of the node; raise a TokenUnavailable."""
        key = (identity.resource_id, audience)
        grant = Grant(identity=identity, pod=pod)
        return await self._kept_or(key, lambda: self._issued(grant, audience))

    def forget(self, assertion: str) -> bool:
        """Forget one that was not accepted; return whether it was kept at all."""
        for key, (text, _) in self._kept.items():
            if text == assertion:
                del self._kept[key]
                return True
        return False

    async def _kept_or(self, key: object, mint: Callable[[], Awaitable[Minted]]) -> str:
        text, until = self._kept.get(key, ("", 0.0))
        if self._clock.time() < until:
            self._kept.move_to_end(key)
            return text
        begun = self._clock.time()
        made = await mint()
        self._kept[key] = (made.text, begun + SHARE * (made.expires_on - begun))
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return made.text

    async def _requested(self, account: ObjectRef, audience: str, pod: Pod | None) -> Minted:
        request = render_token_request(audience, pod)
        try:
            return parse_token_request(await self._server.create(token_path(account), request))
        except KubeError as error:
            raise _refusal(account, error, of_caller=pod is not None) from error
        except ValueError as error:
            raise TokenSourceDown(str(error)) from error

    async def _issued(self, grant: Grant, audience: str) -> Minted:
        token = await self._imds.issue(grant, audience)
        return Minted(text=token.value, expires_on=token.expires_on)


def _refusal(account: ObjectRef, error: KubeError, *, of_caller: bool) -> TokenUnavailable:
    """Return what is told; `of_caller`: the token would have been bound to the pod that asks."""
    # 409: a pod of the same name has another uid by now.
    if error.not_found or (error.conflict and of_caller):
        return NotYetKnown(
            f"ServiceAccount {account} does not exist, or the pod is gone",
            status=401,
            error="invalid_client",
            of_caller=of_caller,
        )
    if error.forbidden:
        return TokenRefused(
            f"the API server does not let NMI request tokens of ServiceAccount {account}",
            status=403,
            error="access_denied",
        )
    return TokenSourceDown(f"the API server gave no token of ServiceAccount {account}")
