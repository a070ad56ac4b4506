"""Ports with metrics: decorators of the token issuers and of the attestor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from podidentity.core.attestation import Proof, Verdict
from podidentity.core.errors import TokenUnavailable
from podidentity.core.ports import Attestor, Clock, TokenIssuer
from podidentity.core.resources import AzureIdentity, IdentityType, Pod
from podidentity.core.tokens import AccessToken, Grant
from podidentity.nmi.reporting.metrics import NmiMetrics

_OLD_NAMES = {("get", "pods"): "get_pod_list", ("get", "secrets"): "get_secret"}
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete", "WATCH": "watch"}


class MeasuredIssuers:
    """A core.ports.TokenIssuer for all types of identity, that counts and times what is asked."""

    def __init__(
        self, by_type: Mapping[IdentityType, TokenIssuer], metrics: NmiMetrics, clock: Clock
    ) -> None:
        self._by_type = by_type
        self._metrics = metrics
        self._clock = clock

    def credential(self, grant: Grant) -> Hashable | None:
        """Return all that decides which token it is but the audience; None if it must be read."""
        return self._by_type[grant.identity.type].credential(grant)

    async def ready(self, grant: Grant) -> Hashable:
        """Return `credential`, after reading what it takes; raise a TokenUnavailable."""
        return await self._by_type[grant.identity.type].ready(grant)

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        """Return a new token from IMDS or Entra; raise a TokenUnavailable."""
        identity, begun = grant.identity, self._clock.monotonic()
        issuer = self._by_type[identity.type]
        try:
            token = await issuer.issue(grant, resource, bypass_cache=bypass_cache)
        except TokenUnavailable as error:
            self._count(identity, begun, type(error).__name__)
            raise
        self._count(identity, begun, "ok")
        return token

    def _count(self, identity: AzureIdentity, begun: float, outcome: str) -> None:
        metrics, seconds = self._metrics, self._clock.monotonic() - begun
        source = source_of(identity)
        metrics.calls.of(source, outcome).value += 1
        metrics.call_seconds.of(source).observe(seconds)
        operation = operation_of(identity)
        # The archived agent's `imds_operations` were Entra's as well.
        metrics.imds_seconds.of(operation).observe(seconds)
        if outcome != "ok":
            metrics.imds_errors.of(operation).value += 1


def source_of(identity: AzureIdentity) -> str:
    """Return who issues the identity's tokens."""
    return "imds" if identity.type is IdentityType.USER_ASSIGNED else "entra"


def operation_of(identity: AzureIdentity) -> str:
    """Return the archived agent's name for asking for a token of it."""
    if identity.type is not IdentityType.USER_ASSIGNED:
        return "adal_token"
    return "adal_token_msi" if identity.system_assigned else "adal_token_msi_userassignedid"


class MeasuredAttestor:
    """A core.ports.Attestor that counts verdicts."""

    def __init__(self, attestor: Attestor, metrics: NmiMetrics) -> None:
        self._attestor = attestor
        self._counters = {each: metrics.verdicts.of(each.value) for each in Verdict}

    async def prove(self, address: str, port: int, candidates: Sequence[Pod]) -> Proof:
        """Ask the kernel whose a connection to IMDS is."""
        return self._counted(await self._attestor.prove(address, port, candidates))

    def ask(
        self,
        address: str,
        port: int,
        candidates: Sequence[Pod],
        judged: Callable[[Proof], None],
    ) -> bool:
        """Ask the kernel whose a connection to IMDS is, and have `judged` called later."""
        return self._attestor.ask(
            address, port, candidates, lambda proof: judged(self._counted(proof))
        )

    async def prove_local(self, address: str, port: int, own: str) -> Proof:
        """Ask the kernel whose a connection from the node is."""
        return self._counted(await self._attestor.prove_local(address, port, own))

    def _counted(self, proof: Proof) -> Proof:
        self._counters[proof.verdict].value += 1
        return proof


def kubernetes_errors(metrics: NmiMetrics) -> Callable[[str, str], None]:
    """Return what counts a failed request (method, path) to the API server."""

    def count(method: str, path: str) -> None:
        metrics.kubernetes_errors.of(kubernetes_operation(method, path)).value += 1

    return count


def kubernetes_operation(method: str, path: str) -> str:
    """Return the name of a request, the archived agent's where it made the same."""
    segments = path.strip("/").split("/")
    # api/v1/… or apis/GROUP/VERSION/…, then perhaps namespaces/NAME.
    rest = segments[2:] if segments[0] == "api" else segments[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    kind = rest[0] if rest else "api"
    verb = _VERBS.get(method, "other")
    return _OLD_NAMES.get((verb, kind), f"{verb}_{kind}")
