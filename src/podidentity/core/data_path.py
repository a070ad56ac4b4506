"""Whether pods' requests for IMDS arrive at us: what one probe says of it, and a row of them.

Rules that are in place prove nothing: a program at a pod's link may send its packets past them
(eBPF host routing). So `net` sends a fixed request from the network namespace of a pod of our own,
the probe pod. It names the request beforehand, by a nonce and both ends of its connection, and
`serve` tells it what arrived. The request lacks the header that IMDS demands: where it arrives
there, the answer is an error and never a token.

No pod of a tenant can make a probe succeed or fail. Only the probe itself carries its nonce; only
`net` can use its address and port; and `serve` takes a request for a probe only if it comes from
there. A `serve` in a stranger's hands cannot call a broken path whole: it learns the nonce by the
path or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import NamedTuple

PROOF_SECONDS = 60.0
"""A proof holds for so long while the probe pod is away: it may be replaced by a new one."""


class Backend(StrEnum):
    """What leads pods' requests to NMI; the values of `--backend`."""

    NFTABLES = "nftables"
    """Rules of the node (`kernel.rules`)."""
    LRP = "lrp"
    """A local redirect policy of Cilium, for nodes where packets pass the rules. NMI listens at the
    node's own address for it, too, and the rules stay: requests come by one or by the other."""


class Answerer(StrEnum):
    """Who answered on the connection of a probe."""

    OURS = "ours"
    IMDS = "imds"
    ANOTHER = "another"
    NONE = "none"


class Arrival(NamedTuple):
    """A probe's request, as it was sent or as it arrived."""

    nonce: str
    address: str
    """The pod's."""
    port: int
    own: str
    """Address of NMI at which it arrives."""


class Hop(StrEnum):
    """How far a probe came; the label of a metric."""

    PROVED = "proved"
    """To `serve`, and back."""
    NO_ANSWER = "no-answer"
    IMDS = "imds"
    """To IMDS itself: every pod of the node may have the node's identities."""
    ANOTHER = "another-program"
    UNSEEN = "unseen"
    """To a program that answers as `serve` does, and is not the one that asked."""
    NOT_SENT = "not-sent"
    """Nowhere: there is no probe pod, or its network namespace cannot be entered."""


def hop_of(answerer: Answerer, sent: Arrival, arrived: Arrival | None) -> Hop:
    if answerer is Answerer.NONE:
        return Hop.NO_ANSWER
    if answerer is Answerer.IMDS:
        return Hop.IMDS
    if answerer is Answerer.ANOTHER:
        return Hop.ANOTHER
    return Hop.PROVED if arrived == sent else Hop.UNSEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """How far a probe came."""

    hop: Hop
    detail: str = ""
    """The reason, as a clause."""
    plane: str = ""
    """How the pod is connected: `bridge` or `routed`; "" if that is not known."""
    backend: Backend | None = None
    """What led it to `serve`; None if it did not come there."""

    def __str__(self) -> str:
        """Return it as a sentence without its end and, after a semicolon, the next step."""
        more = f" ({self.detail})" if self.detail else ""
        what, mend = _TEXTS[self.hop]
        return f"{what}{more}; {mend}" if mend else f"{what}{more}"


_TEXTS = {
    Hop.PROVED: ("a request from the pod has arrived at NMI, and its answer at the pod", ""),
    Hop.NO_ANSWER: (
        "a request from the pod got no answer",
        "let pods out to 169.254.169.254/32, TCP port 80, in every network policy; with eBPF host "
        "routing run podidentity enable --backend=lrp, or turn it off (AKS: acceleration mode "
        "None); and see the other checks of NMI's /readyz",
    ),
    Hop.IMDS: (
        "a request from the pod was answered by IMDS itself, past NMI's rules: pods can take every "
        "identity of this node",
        "turn eBPF host routing off (AKS: acceleration mode None), or take the identities from "
        "the machine; docs/reference/nodes.md has the networks on which NMI works",
    ),
    Hop.ANOTHER: (
        "a request from the pod was answered by another program than NMI",
        "find what answers for 169.254.169.254 on this node: a proxy of the metadata security "
        "protocol (port 3080), a local redirect policy, or another agent for identities",
    ),
    Hop.UNSEEN: (
        "a request from the pod was answered as by NMI, and did not arrive at this one",
        "remove the second NMI of this node, or what imitates it",
    ),
    Hop.NOT_SENT: (
        "no request can be sent from the pod",
        "see the probe pod: kubectl describe daemonset podidentity-probe, in NMI's namespace",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPath:
    """The results of all probes so far, as far as they count. Times are seconds of one clock."""

    proved: float = -inf
    """When a probe was last successful."""
    plane: str = ""
    """As the last probe found it."""
    backend: Backend | None = None
    """What led the last successful probe to `serve`."""
    failed: ProbeResult | None = None
    """Why the path does not count as whole."""
    doubted: ProbeResult | None = None
    """Why one probe failed: the next one decides."""
    unproved: ProbeResult | None = None
    """Why the last probe could not be sent."""

    def after(self, result: ProbeResult, now: float) -> DataPath:
        """Return what is known after one more probe.

        That IMDS itself answered is beyond doubt. Other failures must be seen twice, because a
        request may meet the change from one agent to the next, or a busy moment. A failure lasts
        until a probe succeeds, also while none can be sent.
        """
        plane = result.plane or self.plane
        if result.hop is Hop.PROVED:
            return DataPath(proved=now, plane=plane, backend=result.backend)
        if result.hop is Hop.NOT_SENT:
            return replace(self, unproved=result)
        if result.hop is Hop.IMDS or self.doubted or self.failed:
            return replace(self, failed=result, doubted=None, unproved=None, plane=plane)
        return replace(self, doubted=result, unproved=None, plane=plane)

    @property
    def settled(self) -> bool:
        """Whether the last probe was successful, so that the next one has time."""
        return not (self.failed or self.doubted or self.unproved) and self.proved != -inf

    def problem(self, now: float) -> str:
        """Return why the path is not whole or not proved, with the next step; "" if it is."""
        if self.failed:
            return str(self.failed)
        if now - self.proved <= PROOF_SECONDS:
            return ""
        return f"nothing proves that pods' requests arrive at NMI: {self._why()}"

    def warning(self, now: float) -> str:
        """Return why the last proof is not the newest that it could be; "" if it is."""
        if self.failed or self.settled or now - self.proved > PROOF_SECONDS:
            return ""
        ago = now - self.proved
        return f"pods' requests arrived at NMI {ago:.0f} s ago, and since then {self._why()}"

    def hop(self, now: float) -> Hop:
        if self.failed:
            return self.failed.hop
        return Hop.PROVED if now - self.proved <= PROOF_SECONDS else Hop.NOT_SENT

    def _why(self) -> str:
        why = self.unproved or self.doubted
        return str(why) if why else "the first probe is under way"
