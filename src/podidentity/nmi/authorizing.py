"""Who may use which identity, as the operator wants it to be found out."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from podidentity.adapters.permission_cache import RbacPermissions
from podidentity.core.permission import Authorization
from podidentity.core.ports import Clock
from podidentity.settings import NmiSettings
from podidentity.wire.kube import KubeApi

_log = logging.getLogger("podidentity.nmi")


def permissions_of(
    settings: NmiSettings, server: KubeApi, clock: Clock, stack: AsyncExitStack
) -> RbacPermissions | None:
    """Return what asks `server`, closed by `stack`; None where nobody is to be asked."""
    choice = Authorization(settings.authorization)
    if choice is Authorization.OFF:
        _log.warning(
            "--authorization=off: whoever may create an AzureIdentity may use any identity"
        )
        return None
    if choice is Authorization.OBSERVE:
        _log.warning("--authorization=observe: a missing permission is told, and refuses nothing")
    permissions = RbacPermissions(server, clock, outlives=settings.authorization_outlives)
    stack.push_async_callback(permissions.close)
    return permissions
