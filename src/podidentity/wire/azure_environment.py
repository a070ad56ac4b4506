"""The JSON file that describes an Azure Stack Hub, in the form of Azure's Go clients.

https://learn.microsoft.com/azure-stack/user/azure-stack-version-profiles-go and
https://github.com/Azure/go-autorest/blob/main/autorest/azure/environments.go
"""

from __future__ import annotations

import msgspec

from podidentity.core.authorities import PUBLIC, STACK, Cloud
from podidentity.core.resources import Authority, InvalidId
from podidentity.wire import BROKEN_JSON


class _Environment(msgspec.Struct, rename="camel"):
    active_directory_endpoint: str
    name: str = STACK
    resource_manager_endpoint: str = ""
    token_audience: str = ""


_ENVIRONMENT = msgspec.json.Decoder(_Environment)


def parse_environment(body: bytes) -> Cloud:
    """Return the cloud that the file describes; raise ValueError."""
    try:
        found = _ENVIRONMENT.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except BROKEN_JSON as error:
        raise ValueError(f"it is no environment file of Azure Stack: {error}") from error
    # With AD FS the endpoint ends in the tenant's name; each identity names its tenant itself.
    origin = found.active_directory_endpoint.rstrip("/").removesuffix("/adfs")
    try:
        authority = Authority.parse(origin)
    except InvalidId as error:
        raise ValueError(f"its activeDirectoryEndpoint {error}") from error
    manager = found.resource_manager_endpoint.rstrip("/")
    if manager and not manager.startswith("https://"):
        raise ValueError("its resourceManagerEndpoint must be an https URL")
    return Cloud(
        name=found.name,
        authority=authority,
        exchange_audience=PUBLIC.exchange_audience,
        resource_manager=manager,
        resource_manager_audience=found.token_audience.rstrip("/") or manager,
    )
