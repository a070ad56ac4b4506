"""States facts about connections: which socket is at the client's end, and in whose cgroup.

A pod can send packets with its neighbour's address (ARP poisoning, a stolen MAC address, a second
address), and hold a whole conversation with them. But it cannot make a socket in the neighbour's
network namespace, under the neighbour's cgroup: so for each connection that NMI accepted, the
namespaces that hold the address are asked whether that connection's socket is theirs, and whose.
`core.attestation` judges the answers.

What this does not prove: who reads along. A pod that puts itself between its neighbour and the
node by ARP sees the neighbour's own, proven connections; only a filter on the bridge closes that.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Self

from podidentity.core.attestation import AttestationMode, ConnectionFacts, Sighting, SocketState
from podidentity.kernel.both_ends import difference
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.namespaces import (
    NamespaceKey,
    gets_mounts,
    unpropagated,
    without_namespace,
)
from podidentity.kernel.podnets import PodNetwork, PodNetworks
from podidentity.kernel.sock_diag import Endpoint, SockDiag, TcpSocket, TcpState

IMDS = Endpoint("169.254.169.254", 80)
_NODE = "the node's network"
_STILL_OURS = frozenset({TcpState.ESTABLISHED, TcpState.CLOSE_WAIT})
"""States of our end while we have not closed it."""


class ConnectionInspector:
    """Inspects accepted connections."""

    def __init__(
        self,
        *,
        netns_dirs: Sequence[Path],
        cgroups: PodCgroups | None,
        listener: Endpoint,
        imds: Endpoint = IMDS,
    ) -> None:
        """`cgroups` None: cgroups are not asked, and no sighting names a pod.

        `listener` is where intercepted connections end (`Redirect.target`); the node's own
        come to the same port of other addresses.
        """
        _raise_file_limit()
        self._netns_dirs = netns_dirs
        self._networks = PodNetworks(*netns_dirs)
        self._cgroups = cgroups
        self._listener = listener
        self._imds = imds
        self._node = SockDiag()
        self.bound_to: Callable[[str], NamespaceKey | None] = lambda _: None
        """Tells which namespace alone can send with an address; None where none is known to."""
        self._no_network = False
        """Whether a pod's connection came while no pod's namespace was to be seen."""
        self._unpropagated = ""
        """As of the last look at the problems."""
        self._without_mounts = _without_mounts(netns_dirs)
        """The folders that get none of the node's later mounts, as of then."""
        self._pods_seen = self._strangers_seen = 0
        """Sockets in pods' namespaces whose cgroup was a pod's, and was not."""
        self._networks.refresh()
        if cgroups is not None:
            cgroups.check()

    @classmethod
    def open(
        cls,
        mode: AttestationMode,
        *,
        netns_dirs: Sequence[Path],
        cgroup_root: Path,
        listener: Endpoint,
        imds: Endpoint = IMDS,
    ) -> Self:
        """Return the inspector for this node, which asks for cgroups if `mode` needs them."""
        cgroups = PodCgroups(cgroup_root) if mode is AttestationMode.KERNEL else None
        return cls(
            netns_dirs=netns_dirs,
            cgroups=cgroups,
            listener=listener,
            imds=imds,
        )

    @property
    def networks(self) -> PodNetworks:
        """The pods' namespaces, for who else needs them."""
        return self._networks

    def facts(self, address: str, port: int) -> ConnectionFacts:
        """Return the facts about the connection from `address`:`port` to IMDS.

        Costs some ten system calls if one namespace holds the address, and more only for namespaces
        that came or changed since the last call.
        """
        try:
            socket.inet_pton(socket.AF_INET, address)
        except OSError:
            # IMDS has an IPv4 address only.
            return ConnectionFacts(accepted=False)
        client = Endpoint(address, port)
        self._networks.refresh()
        holders = self._networks.holders(address)
        if (bound := self.bound_to(address)) is not None:
            # Others may have the address, and a socket with the same ends: not this connection.
            holders = [each for each in holders if each.key == bound]
        return self._facts(client, self._listener, holders, self._failure())

    def local_facts(self, address: str, port: int, own: str) -> ConnectionFacts:
        """Return the facts about the connection from `address`:`port` of the node itself to `own`.

        The node's own namespace is this process's: nobody else's socket can be found there. But two
        processes may connect from one address and port, each to another address of ours.
        """
        try:
            socket.inet_pton(socket.AF_INET, address)
            socket.inet_pton(socket.AF_INET, own)
        except OSError:
            return ConnectionFacts(accepted=False)
        return self._facts(Endpoint(address, port), Endpoint(own, self._listener.port), (None,), "")

    def problems(self) -> tuple[str, ...]:
        """Return what keeps callers from being proven, with the next steps; () if nothing does."""
        self._networks.refresh()
        self._unpropagated = next(filter(None, map(unpropagated, self._netns_dirs)), "")
        self._without_mounts = _without_mounts(self._netns_dirs)
        found = [self._networks.failure, self._without_networks(), self._unpropagated]
        if self._cgroups is not None:
            found += [self._cgroups.check(), self._without_pods()]
        return tuple(filter(None, found))

    async def follow(self) -> None:
        """Let go of the namespaces of pods that end, until cancelled; run it beside the service."""
        await self._networks.follow()

    def close(self) -> None:
        """Close every socket."""
        self._networks.close()
        self._node.close()
        if self._cgroups is not None:
            self._cgroups.close()

    def _facts(
        self,
        client: Endpoint,
        listener: Endpoint,
        networks: Collection[PodNetwork | None],
        failure: str,
    ) -> ConnectionFacts:
        """Look at our end first, then at the client's: so the client has always sent as much.

        A second time if they do not fit, because we may have sent or closed something meanwhile.
        """
        sightings: tuple[Sighting, ...] = ()
        for _ in range(2):
            try:
                ours = self._node.find(listener, client)
            except OSError as error:
                return ConnectionFacts(accepted=False, failure=str(error.strerror))
            if ours is None or ours.state not in _STILL_OURS:
                return ConnectionFacts(accepted=False)
            sightings = tuple([self._at(each, client, listener, ours) for each in networks])
            if not any(each.doubt for each in sightings):
                break
        return ConnectionFacts(accepted=True, sightings=sightings, failure=failure)

    def _failure(self) -> str:
        if self._networks.failure:
            return self._networks.failure
        self._no_network = not len(self._networks)
        return self._without_networks() or self._unpropagated or self._unseen()

    def _unseen(self) -> str:
        """Say at once that a namespace does not come here: its pod is no forger."""
        if not self._without_mounts:
            return ""
        bare = [each for each in self._networks.bare() if each.parent in self._without_mounts]
        return without_namespace(bare[0].parent, bare[0].name) if bare else ""

    def _without_networks(self) -> str:
        if not self._no_network or len(self._networks):
            return ""
        folders = " or ".join(map(str, self._netns_dirs))
        return (
            f"a pod has connected, and no network namespace is in {folders}: name the "
            "folder of the container runtime's by --netns-dir, and mount it (containerd with "
            "netns_mounts_under_state_dir has its own)"
        )

    def _without_pods(self) -> str:
        if self._pods_seen or not self._strangers_seen:
            return ""
        return (
            f"{self._strangers_seen} sockets in pods' network namespaces were in no pod's cgroup, "
            "and none was in one: the kubelet and the container runtime must use one cgroup "
            "driver, and cgroup v2"
        )

    def _at(
        self, network: PodNetwork | None, client: Endpoint, listener: Endpoint, ours: TcpSocket
    ) -> Sighting:
        """Return what there is of the connection in a pod's network; None: in the node's."""
        name = network.name if network else _NODE
        try:
            if network is None:
                found = self._node.find(client, listener)
            else:
                found = network.find(client, self._imds)
            if found is None or not found.is_of_connection:
                return Sighting(network=name)
            if not found.is_open:
                return Sighting(network=name, state=SocketState.CLOSED, user=found.user)
            return self._open(name, found, difference(found, ours))
        except OSError as error:
            return Sighting(network=name, failure=str(error.strerror))

    def _open(self, name: str, found: TcpSocket, doubt: str) -> Sighting:
        try:
            pod = self._cgroups.pod(found.cgroup) if self._cgroups is not None else None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            # Its cgroup is removed: the pod has ended, there is nobody to answer.
            return Sighting(network=name, state=SocketState.CLOSED, user=found.user)
        if pod is not None and name != _NODE:
            self._pods_seen += pod != ""
            self._strangers_seen += pod == ""
        state = SocketState.OPEN
        return Sighting(network=name, state=state, pod=pod, user=found.user, doubt=doubt)


def _without_mounts(folders: Sequence[Path]) -> frozenset[Path]:
    try:
        return frozenset(each for each in folders if not gets_mounts(each))
    except OSError:
        return frozenset()  # that nothing can be read there is said elsewhere


def _raise_file_limit() -> None:
    """Allow as many files as the hard limit does: two for each pod, one for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
