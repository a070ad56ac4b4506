"""What the services need from the world, as Protocols.

Adapters and the kernel package implement them; tests implement them in memory. Nothing here says
how: an HTTP call, a netlink question or a dictionary are all the same to a service.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from podidentity.core.attestation import Proof
from podidentity.core.entitlements import Directory
from podidentity.core.ids import ObjectRef
from podidentity.core.permission import Use
from podidentity.core.resources import Pod
from podidentity.core.secrets import Secret
from podidentity.core.tokens import AccessToken, Grant


class Clock(Protocol):
    """Time, so that a test can turn it."""

    def time(self) -> float:
        """Return seconds since 1970."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


class Cluster(Directory, Protocol):
    """The watched cluster: the pods of this node and the custom resources, indexed."""

    @property
    def synced(self) -> bool:
        """Whether every list has been read once; before that nothing can be refused for good."""

    @property
    def revision(self) -> int:
        """A number that grows with each change: what was decided at an older one may be wrong."""

    def pods_at(self, address: str) -> Sequence[Pod]:
        """Return the pods of this node whose status has the address and that have not ended."""

    def pod(self, ref: ObjectRef) -> Pod | None:
        """Return the pod of that name, ended or not, with an address or without."""

    def pod_by_uid(self, uid: str) -> Pod | None:
        """Return the pod with that uid; a scan of the node's pods, for what is rare."""

    def changed_at(self, pod: Pod) -> float:
        """Return when what decides about `pod` last changed, in `Clock.monotonic` seconds.

        That is the pod's start, a change of its label or of its assignment, or of a binding or
        identity in its namespace; `-inf` where nothing changed since the agent started.
        """

    async def changed(self) -> None:
        """Return at the next change of a pod, a binding or an identity."""


class Permissions(Protocol):
    """What the cluster's RBAC says of service accounts and identities."""

    @property
    def revision(self) -> int:
        """A number that grows when a decision turns into its opposite; not with time."""

    def known(self, use: Use) -> bool | None:
        """Return the decision if it is known and fresh, without asking anybody."""

    async def ask(self, use: Use) -> bool:
        """Return the decision, asking at most once however many wait; raise NotReady.

        An older decision outlives the absence of whoever is asked.
        """


class Secrets(Protocol):
    """Secrets of the cluster, each watched while somebody needs it."""

    def known(self, ref: ObjectRef) -> Secret | None:
        """Return the secret as it is now; None where it is not read, or does not exist."""

    async def read(self, ref: ObjectRef) -> Secret:
        """Return the secret, after reading it; raise a TokenUnavailable."""


class TokenIssuer(Protocol):
    """One kind of source of tokens: IMDS, or Entra."""

    def credential(self, grant: Grant) -> Hashable | None:
        """Return all that decides which token `grant` gets but the audience, credential included.

        Equal values mean the same token. None where something must be read first: then `ready`.
        No secret is in it or in its `repr`, only a keyed digest.
        """

    async def ready(self, grant: Grant) -> Hashable:
        """Return `credential`, after reading what it takes; raise a TokenUnavailable."""

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        """Return a new token for the audience `resource`; raise a TokenUnavailable."""


class Origin(StrEnum):
    """Where a token came from, for the log."""

    CACHE = "cache"
    IMDS = "imds"
    ENTRA = "entra"
    SHARED = "shared"
    """Another request's fetch, already under way."""


class CachedToken(Protocol):
    """A token, and until when it may be given without asking its source again."""

    @property
    def token(self) -> AccessToken:
        """The token."""

    @property
    def fresh_until(self) -> float:
        """Monotonic seconds; in the past once it was dropped or replaced."""

    @property
    def fresh_until_time(self) -> float:
        """The same in seconds since 1970: whichever comes first counts."""


class Fetched(NamedTuple):
    """A token from its source."""

    entry: CachedToken
    origin: Origin

    @property
    def token(self) -> AccessToken:
        """The token itself."""
        return self.entry.token


class TokenSource(Protocol):
    """Where the services have tokens from."""

    async def fetch(self, grant: Grant, resource: str, *, bypass_cache: bool = False) -> Fetched:
        """Return a token of `grant` for `resource`; raise a TokenUnavailable."""


class Attestor(Protocol):
    """Proves whose socket is at the other end of a connection."""

    async def prove(self, address: str, port: int, candidates: Sequence[Pod]) -> Proof:
        """Return the proof of the connection from `address`:`port` to IMDS.

        `candidates` are the pods whose status has the address.
        """

    async def prove_local(self, address: str, port: int, own: str) -> Proof:
        """Return the proof of the connection from the node's own `address`:`port` to us.

        `own` is our address that it came to: one port may have a connection to each of ours. The
        proof's `pod_uid` is "" for a process of no pod, and where cgroups are not asked.
        """
