"""Objects of the cluster, from JSON to the values of the core and back.

Structs name only the fields that we read, so that an object of 10 kB costs microseconds.
"""

from podidentity.wire.manifests.identities import (
    IDENTITY_KIND,
    parse_identity,
    render_identity,
)
from podidentity.wire.manifests.others import (
    ASSIGNED_KIND,
    BINDING_KIND,
    EXCEPTION_KIND,
    SERVICE_ACCOUNT_KIND,
    parse_assigned,
    parse_binding,
    parse_exception,
    parse_service_account,
    render_binding,
)
from podidentity.wire.manifests.reading import API_VERSION

__all__ = [
    "API_VERSION",
    "ASSIGNED_KIND",
    "BINDING_KIND",
    "EXCEPTION_KIND",
    "IDENTITY_KIND",
    "SERVICE_ACCOUNT_KIND",
    "parse_assigned",
    "parse_binding",
    "parse_exception",
    "parse_identity",
    "parse_service_account",
    "render_binding",
    "render_identity",
]
