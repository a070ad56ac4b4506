"""What Entra publishes of itself: its names, a tenant's endpoints.

https://learn.microsoft.com/entra/identity-platform/v2-protocols-oidc
"""

from __future__ import annotations

from podidentity_sandbox.azure.tenants import Cloud, Tenant, Tenants


def instances(tenants: Tenants, cloud: Cloud) -> dict[str, object]:
    """Return the names that this authority has: MSAL asks before it tells an error."""
    home = next(tenant for tenant in tenants.all if tenant.cloud is cloud)
    host = cloud.logins[0]
    names = {"preferred_network": host, "preferred_cache": cloud.logins[-1]}
    return {
        "tenant_discovery_endpoint": f"https://{host}/{home.id}/v2.0/.well-known"
        "/openid-configuration",
        "api-version": "1.1",
        "metadata": [{**names, "aliases": list(cloud.logins)}],
    }


def configuration(tenant: Tenant, *, v2: bool) -> dict[str, object]:
    """Return a tenant's discovery document."""
    base = f"https://{tenant.cloud.logins[0]}/{tenant.id}"
    path = f"{base}/oauth2{'/v2.0' if v2 else ''}"
    return {
        "token_endpoint": f"{path}/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "jwks_uri": f"{base}/discovery{'/v2.0' if v2 else ''}/keys",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "issuer": tenant.issuer_v2 if v2 else tenant.issuer,
        "authorization_endpoint": f"{path}/authorize",
    }
