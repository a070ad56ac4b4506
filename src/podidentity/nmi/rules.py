"""What an operator's settings mean for a decision, in NMI and in the commands that explain one.

The commands load this page alone, and none of the agent's parts.
"""

from __future__ import annotations

from podidentity.core.attestation import Trust
from podidentity.core.decision import Rules
from podidentity.settings import NmiSettings


def rules_of(settings: NmiSettings) -> Rules:
    compat = settings.compat
    return Rules(
        standard=settings.standard,
        exception_namespaces=settings.exception_namespaces,
        any_label=compat.any_label_exceptions,
        cross_namespace=compat.cross_namespace,
        foreign_secrets=compat.foreign_secrets,
        authorities=settings.authorities,
        tenant=settings.tenant,
    )


def trust_of(settings: NmiSettings) -> Trust:
    """Return what proves connections that no process of their pod has."""
    by_class = dict(settings.attestation_by_runtime_class)
    return Trust(proxies=settings.trusted_proxies, by_class=by_class)
