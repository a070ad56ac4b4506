"""Federated identities: whether Entra can read the keys of the cluster's issuer.

Entra compares what a token names as its issuer byte for byte: a slash at the end, or a letter in
another case, is another issuer.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from podidentity.adapters.published_issuer import DISCOVERY, PublishedIssuer
from podidentity.cli.checks.findings import CheckReason, Finding, Severity, sentence
from podidentity.core.resources import AzureIdentity, ObjectRef


def is_federated(identity: AzureIdentity) -> bool:
    """Whether tokens of this cluster sign in for it, and no other identity does."""
    federation = identity.entra.federation if identity.entra else None
    return federation is not None and federation.via is None


def issuer_faults(issuer: str, published: PublishedIssuer) -> Iterator[Finding]:
    """Yield why Entra would not read the keys of the cluster's issuer."""
    about = ObjectRef("", issuer)
    place = shlex.quote(f"{issuer.rstrip('/')}{DISCOVERY}")
    if published.silent:
        yield Finding(
            kind="Issuer",
            about=about,
            reason=CheckReason.ISSUER_SILENT,
            what=f"From here nobody answers: {published.silent}. Entra reads it from outside; "
            "whether it can is not known.",
            mend=f"Ask from a machine on the Internet: curl {place}.",
            severity=Severity.WARNING,
        )
    elif published.problem:
        yield Finding(
            kind="Issuer",
            about=about,
            reason=CheckReason.ISSUER_UNREADABLE,
            what=sentence(
                f"Entra cannot read the keys of the cluster's tokens: {published.problem}"
            ),
            mend="On AKS run az aks update --enable-oidc-issuer; elsewhere see "
            "docs/how-to/federation.md.",
        )
    elif published.issuer != issuer:
        yield Finding(
            kind="Issuer",
            about=about,
            reason=CheckReason.ISSUER_DIFFERS,
            what=f"Its own document names {published.issuer!r}, and tokens name {issuer!r}: Entra "
            "refuses them.",
            mend="Give the API server's --service-account-issuer and the published document the "
            "same text, to the last slash.",
        )
