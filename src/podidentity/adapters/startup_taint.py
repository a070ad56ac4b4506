"""Takes the start-up taint off this node when NMI is ready on it.

A node that joins the cluster has no rules of ours yet, and its pods would reach the real IMDS. So
nodes start with a taint (`NoSchedule`) that NMI tolerates and tenants' pods do not. This agent
takes it off, on its own node alone: `manifests/startup-taint.yaml` lets it do nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from podidentity.core.ports import Clock
from podidentity.wire.kube import NODES, KubeApi, KubeError
from podidentity.wire.nodes import NotANode, parse_taints

SOON = 0.5
"""Seconds between two looks whether NMI is ready, while the taint may be there."""
AGAIN = 5.0
"""Seconds until the next try where the API server refused."""
LATER = 300.0
"""Seconds until the next look at a node that has no such taint: somebody may put it back."""

_log = logging.getLogger(__name__)


class StartupTaint:
    """Looks at the node until the taint is off; `run` it as a task."""

    def __init__(
        self, kube: KubeApi, clock: Clock, *, node: str, key: str, ready: Callable[[], bool]
    ) -> None:
        """`ready` says whether NMI serves this node's pods and its rules hold."""
        self._kube = kube
        self._clock = clock
        self._node = node
        self._key = key
        self._ready = ready
        self._trouble = ""

    def warnings(self) -> Sequence[str]:
        """Return why the taint may still be on the node though NMI is ready; () otherwise."""
        return (self._trouble,) if self._trouble else ()

    async def run(self) -> None:
        while True:
            if not self._ready():
                await self._clock.sleep(SOON)
            elif await self.look():
                await self._clock.sleep(LATER)
            else:
                await self._clock.sleep(AGAIN if self._trouble else SOON)

    async def look(self) -> bool:
        """Take the taint off if it is there; return whether the node has none now.

        Of two who change the node at once one is refused, and tries again.
        """
        path = NODES.path(name=self._node)
        try:
            found = parse_taints(await self._kube.get(path))
            if found.has(self._key):
                await self._kube.merge(path, found.without(self._key))
                _log.info("node %s: NMI is ready, taint %s is off", self._node, self._key)
        except KubeError as error:
            self._trouble = "" if error.conflict else self._refused(error)
            return False
        except NotANode as error:
            self._trouble = self._refused(error)
            return False
        self._trouble = ""
        return True

    def _refused(self, error: Exception) -> str:
        said = (
            f"the start-up taint {self._key} cannot be taken off node {self._node} ({error}), so "
            "no pod may be placed there; run podidentity enable --startup-taint with the same key"
        )
        if said != self._trouble:
            _log.warning("%s", said)
        return said
