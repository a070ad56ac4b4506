"""Clients that sign in: the principal of a client id in a tenant, with its credentials.

An application is found by its registration, in any tenant; a user-assigned identity has
federated credentials and nothing else.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from podidentity_sandbox.azure.entra.answers import EntraError
from podidentity_sandbox.azure.state import (
    Application,
    FederatedCredential,
    Principal,
    UserAssignedIdentity,
    World,
)
from podidentity_sandbox.azure.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client in the tenant that it signs in to."""

    principal: Principal
    registration: Application | UserAssignedIdentity | None
    """None: a system-assigned identity, which cannot sign in here at all."""
    federated: tuple[FederatedCredential, ...]
    """Those that the sign-in service knows by now."""

    @property
    def managed_identity(self) -> str:
        """Resource id of the user-assigned identity that it is; "" for an application."""
        one = self.registration
        return one.id if isinstance(one, UserAssignedIdentity) else ""


def client_of(world: World, app_id: str, tenant: Tenant) -> Client:
    """Return the client of that id in a tenant; raise EntraError where it has none."""
    principal = world.principal_of(app_id, tenant.id)
    if principal is None:
        raise EntraError(
            400,
            "unauthorized_client",
            700016,
            f"Application with identifier '{app_id}' was not found in the directory"
            f" '{tenant.id}'. This can happen if the application has not been installed by the"
            " administrator of the tenant or consented to by any user in the tenant. You may have"
            " sent your authentication request to the wrong tenant.",
        )
    registration: Application | UserAssignedIdentity | None = world.application(app_id)
    if registration is None:
        registration = next(
            (
                one
                for one in world.all(UserAssignedIdentity)
                if one.principal_id == principal.object_id
            ),
            None,
        )
    known = world.counting(FederatedCredential, registration.id) if registration else []
    return Client(principal=principal, registration=registration, federated=tuple(known))


def check_secret(client: Client, given: str, now: float) -> None:
    """Raise EntraError unless `given` is a secret of the client that holds at `now`."""
    application = client.registration
    app_id = client.principal.app_id
    if not isinstance(application, Application):
        # Words as in reports only: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
        # does not list the number.
        raise EntraError(
            401,
            "invalid_client",
            7000232,
            f"MSI identity ({app_id}) should not use ClientSecretCredential.",
        )
    fitting = [
        secret
        for secret in application.secrets
        if hmac.compare_digest(secret.value.encode(), given.encode())
    ]
    if any(secret.starts <= now < secret.ends for secret in fitting):
        return
    if fitting:
        raise EntraError(
            401,
            "invalid_client",
            7000222,
            f"The provided client secret keys for app '{app_id}' are expired. Visit the Azure"
            " portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider"
            " using certificate credentials for added security: https://aka.ms/certCreds.",
        )
    raise EntraError(
        401,
        "invalid_client",
        7000215,
        "Invalid client secret provided. Ensure the secret being sent in the request is the client"
        f" secret value, not the client secret ID, for a secret added to app '{app_id}'.",
    )
