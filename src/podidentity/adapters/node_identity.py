"""Whether the API server lets NMI act as its own node, asked again and again.

NMI asks for pods' tokens as its node where it is told to (`--tokens-as=node`), and never otherwise
then. That needs constrained impersonation (Kubernetes 1.36), the rights of
`manifests/node-tokens.yaml`, and a token of NMI's own that names this node. The question costs
nothing and gives nothing away: "who am I?", asked as the node.
"""

from __future__ import annotations

from collections.abc import Sequence

from podidentity.core.ports import Clock
from podidentity.lasting import Lasting
from podidentity.wire.kube import KubeApi, KubeError
from podidentity.wire.reviews import SELF_PATH, parse_self_review, self_review

AGAIN = 60.0
SOON = 5.0
"""Seconds until the next question: after an answer that all is well, and otherwise."""
_MEND = (
    "it needs Kubernetes 1.36 with constrained impersonation, and ClusterRole "
    "podidentity-nmi-as-node: run podidentity enable, which takes --tokens-as=agent where the API "
    "server is older"
)


class NodeIdentity:
    """Asks as whom NMI counts."""

    def __init__(self, as_node: KubeApi, clock: Clock, *, node: str) -> None:
        """`as_node` is the API server, asked as `node`."""
        self.as_node = as_node
        self._clock = clock
        self._node = node
        self._refusals = Lasting()
        self._trouble = f"it is not known yet whether NMI may act as node {node}"

    def problems(self) -> Sequence[str]:
        """Return why pods get no token of their service accounts; () if they do."""
        return (self._trouble,) if self._trouble else ()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.look()
            refused = self._refusals.since is not None
            await self._clock.sleep(SOON if self._trouble or refused else AGAIN)

    async def look(self) -> None:
        """Ask once. An API server that is away changes nothing: others say that it is away."""
        try:
            found = parse_self_review(await self.as_node.create(SELF_PATH, self_review()))
        except KubeError as error:
            if not (error.forbidden or error.not_found):
                self._refusals.passed()
            elif self._refusals.refused(self._clock.monotonic()):
                self._trouble = f"NMI may not act as node {self._node} ({error.message}): {_MEND}"
            return
        except ValueError as error:
            self._trouble = f"NMI does not know as whom it acts: {error}"
            return
        self._refusals.passed()
        mine = found.name == f"system:node:{self._node}" and "system:nodes" in found.groups
        who = found.name or "nobody"
        self._trouble = (
            ""
            if mine
            else f"the API server takes NMI for {who}, not for node {self._node}: {_MEND}"
        )
