"""Federated identities: whether Entra can read the issuer, and trusts what NMI will show it.

Entra compares issuer, subject and audience with a federated credential byte for byte: a slash at
the end, or a letter in another case, is another issuer.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from podidentity.adapters.published_issuer import DISCOVERY, PublishedIssuer
from podidentity.cli.checks.findings import CheckReason, Finding, Severity, named, sentence
from podidentity.core.decision import Match
from podidentity.core.federation import account_name, has_an_account
from podidentity.core.resources import AzureIdentity, ClientId, ObjectRef, ResourceId

MOST_CREDENTIALS = 20
"""Federated credentials that one identity may have."""


def is_federated(identity: AzureIdentity) -> bool:
    federation = identity.entra.federation if identity.entra else None
    return federation is not None and federation.via is None


def issuer_faults(issuer: str, published: PublishedIssuer) -> Iterator[Finding]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedSubject:
    """A federated credential: what of a token Entra trusts."""

    issuer: str
    subject: str
    audience: str


def wanted(
    identity: AzureIdentity,
    issuer: str,
    audience: str,
    matched: Sequence[Match],
    accounts: str,
) -> list[TrustedSubject]:
    """Return what Entra must trust for all pods that may use an identity.

    `accounts` is the namespace of service accounts that stand for identities.
    """
    federation = identity.entra.federation if identity.entra else None
    audience = (federation.audience if federation else "") or audience
    if has_an_account(identity):
        subjects = {f"system:serviceaccount:{accounts}:{account_name(identity.ref)}"}
    else:
        subjects = {
            f"system:serviceaccount:{match.pod.ref.namespace}:{match.pod.service_account}"
            for match in matched
            if any(each.identity.ref == identity.ref for each in match.entitlements)
        }
    return [
        TrustedSubject(issuer=issuer, subject=each, audience=audience) for each in sorted(subjects)
    ]


Trusting = ResourceId | ClientId
"""Whose federated credentials they are: a managed identity's, or an application's."""


def called(trusting: Trusting) -> str:
    return trusting.name if isinstance(trusting, ResourceId) else f"application {trusting}"


def untrusted(
    identity: ObjectRef,
    trusting: Trusting,
    needed: Sequence[TrustedSubject],
    there: Sequence[TrustedSubject],
    number: int,
) -> Iterator[Finding]:
    """Yield what Entra will not trust, with the credential that was probably meant for it.

    `there` has an entry for each audience of each of the `number` credentials.
    """
    for each in needed:
        if each in there:
            continue
        near = next((one for one in there if _folded(one) == _folded(each)), None)
        if near is not None:
            yield Finding(
                kind="AzureIdentity",
                about=identity,
                reason=CheckReason.CREDENTIAL_DIFFERS,
                what=f"A federated credential of {called(trusting)} differs in "
                f"{_difference(near, each)}: Entra compares byte for byte.",
                mend=f"Correct it: {_command(identity, trusting, each)}.",
            )
        else:
            yield Finding(
                kind="AzureIdentity",
                about=identity,
                reason=CheckReason.NO_CREDENTIAL,
                what=f"No federated credential of {called(trusting)} trusts {each.subject} of "
                f"issuer {each.issuer} for audience {each.audience}.",
                mend=f"Run {_command(identity, trusting, each)}.",
            )
    if number >= MOST_CREDENTIALS:
        yield Finding(
            kind="AzureIdentity",
            about=identity,
            reason=CheckReason.CREDENTIALS_FULL,
            what=f"{called(trusting)} has {number} federated credentials, and may have "
            f"{MOST_CREDENTIALS}: no other subject or cluster can be added.",
            mend="Let one service account stand for the identity (podidentity add --subject "
            "identity), or take another identity.",
            severity=Severity.WARNING,
        )


def _folded(trust: TrustedSubject) -> tuple[str, str, str]:
    """Return a credential without what people overlook: case, and a slash at the end."""
    parts = (trust.issuer, trust.subject, trust.audience)
    issuer, subject, audience = (each.strip().rstrip("/").lower() for each in parts)
    return issuer, subject, audience


def _difference(near: TrustedSubject, wanted: TrustedSubject) -> str:
    pairs = {
        "issuer": (near.issuer, wanted.issuer),
        "subject": (near.subject, wanted.subject),
        "audience": (near.audience, wanted.audience),
    }
    parts = [f"its {name} {a!r} from {b!r}" for name, (a, b) in pairs.items() if a != b]
    return named(parts, "fields")


def _command(identity: ObjectRef, trusting: Trusting, trust: TrustedSubject) -> str:
    name = f"{identity.namespace}-{identity.name}"[:120]
    if not isinstance(trusting, ResourceId):
        credential = {"name": name, **asdict(trust)}
        credential["audiences"] = [credential.pop("audience")]
        made = shlex.join(["--id", str(trusting), "--parameters", json.dumps(credential)])
        return f"az ad app federated-credential create {made}"
    return shlex.join(
        [
            *("az", "identity", "federated-credential", "create"),
            *("--name", name),
            *("--identity-name", trusting.name, "--resource-group", trusting.group),
            *("--subscription", trusting.subscription, "--issuer", trust.issuer),
            *("--subject", trust.subject, "--audiences", trust.audience),
        ]
    )
