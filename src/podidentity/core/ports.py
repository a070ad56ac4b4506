"""The ports: Protocols of everything outside the rules that a request needs.

Adapters implement them over HTTP and sockets, tests in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import inf
from typing import Protocol

from podidentity.core.attestation import Proof
from podidentity.core.decision import Directory, Use
from podidentity.core.resources import AccessToken, Fetched, Grant, ObjectRef, Pod
from podidentity.core.secrets import Secret


class Clock(Protocol):
    """The time; tests replace it."""

    def time(self) -> float:
        """Return seconds since 1970."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    async def sleep(self, seconds: float, /) -> None:
        """Return after so many seconds."""


class Cluster(Directory, Protocol):
    """The watched objects: the pods of this node and the custom resources, indexed."""

    @property
    def synced(self) -> bool:
        """Whether every list has been read once; before that no refusal is final."""

    @property
    def revision(self) -> int:
        """A number that grows with each change; a decision holds only for the same number."""

    def pods_at(self, address: str) -> Sequence[Pod]:
        """Return the pods of this node with the address in their status, except ended ones."""

    def pod(self, ref: ObjectRef) -> Pod | None:
        """Return the pod of that name, ended or not, with an address or without."""

    def pod_by_uid(self, uid: str) -> Pod | None:
        """Return the pod with that uid, by a scan of the node's pods."""

    def changed_at(self, pod: Pod) -> float:
        """Return the time of the last change that concerns `pod`, in `Clock.monotonic` seconds.

        Such changes are the pod's start, one of its label or assignment, and one of a binding or
        identity in its namespace; `-inf` if none happened since the agent started.
        """

    def bound_at(self, pod: Pod) -> float:
        """Return the time of the last change of a binding or identity in the pod's namespace.

        In `Clock.monotonic` seconds; `-inf` if none happened since the agent started.
        """

    def seen_at(self, pod: Pod) -> float:
        """Return when the agent saw the pod of this uid first, in `Clock.monotonic` seconds.

        `inf` for a pod that is not there.
        """

    def assigned_at(self, pod: Pod) -> float:
        """Return the time of the last change of a controller's record of `pod`.

        In `Clock.monotonic` seconds; `-inf` if none happened since the agent started.
        """

    async def changed(self) -> None:
        """Return at the next change of a pod, a binding or an identity."""


class Permissions(Protocol):
    """Decisions of the cluster's RBAC on the use of identities by service accounts."""

    @property
    def revision(self) -> int:
        """A number that grows when a decision turns into its opposite; not with time."""

    def known(self, use: Use, since: float) -> bool | None:
        """Return the decision if it is known and fresh, without a question.

        A permission that was asked for before `since`, in `Clock.monotonic` seconds, is not known:
        it was another's of the same name.
        """

    async def ask(self, use: Use, since: float, patience: float = 0.0) -> bool:
        """Return the decision; all waiting requests share one question; raise NotReady.

        During an outage of the API server an older decision stands, but none from before `since`.
        Without one the request waits for `patience` seconds, and for a few in any case.
        """


class Secrets(Protocol):
    """Secrets of the cluster, each watched while it is in use."""

    def known(self, ref: ObjectRef) -> Secret | None:
        """Return the current secret; None if it is not read yet, or does not exist."""

    async def read(self, ref: ObjectRef) -> Secret:
        """Return the secret, after reading it; raise a TokenUnavailable."""


class TokenIssuer(Protocol):
    """One kind of source of tokens: IMDS, or Entra."""

    def credential(self, grant: Grant) -> Hashable | None:
        """Return a key of the tokens of `grant`, to which the audience must be added.

        Grants with equal keys get the same token. None if a secret must be read first: then call
        `ready`. The key contains no secret, only a keyed digest.
        """

    async def ready(self, grant: Grant) -> Hashable:
        """Return `credential` after reading the secret; raise a TokenUnavailable."""

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        """Return a new token for the audience `resource`; raise a TokenUnavailable."""


class Login(Protocol):
    """Somebody who is signed in to Azure: a person at a shell, or MIC."""

    async def token(self, scope: str) -> str:
        """Return an access token for `scope`; raise wire.arm.ArmError with the next step."""


class TokenSource(Protocol):
    """The token cache, as the services see it."""

    async def fetch(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False, until: float = inf
    ) -> Fetched:
        """Return a token of `grant` for `resource`; raise a TokenUnavailable.

        `until`, in `Clock.monotonic` seconds, is when the request is answered without a new one.
        """


class Attestor(Protocol):
    """Proves which pod owns the socket at the other end of a connection."""

    async def prove(
        self, address: str, port: int, candidates: Sequence[Pod], own: str = ""
    ) -> Proof:
        """Return the proof of the connection from `address`:`port` to IMDS.

        `candidates` are the pods with the address in their status. `own` is our address of the
        connection, "" for that of the redirection by rules.
        """

    def ask(
        self,
        address: str,
        port: int,
        candidates: Sequence[Pod],
        judged: Callable[[Proof], None],
        own: str = "",
    ) -> bool:
        """Have `judged` called later with what `prove` returns; False if nothing can be asked."""

    async def prove_local(self, address: str, port: int, own: str) -> Proof:
        """Return the proof of the connection from the node's own `address`:`port` to us.

        `own` is our address of the connection: one port of the client may be connected to several
        of ours. The proof's `pod_uid` is "" for a process of no pod, and if cgroups are not used.
        """
