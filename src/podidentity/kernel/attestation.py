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
import logging
import resource
import socket
from pathlib import Path
from typing import Self

from podidentity.core.attestation import ConnectionFacts, Sighting, SocketState
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.podnets import PodNetwork, PodNetworks
from podidentity.kernel.sock_diag import Endpoint, SockDiag, TcpSocket

_log = logging.getLogger(__name__)

IMDS = Endpoint("169.254.169.254", 80)
HOST = Endpoint("127.0.0.1", 2579)
_NODE = "the node's network"


class ConnectionInspector:
    """Inspects accepted connections.

    Use `open` for a node; the constructor takes what a test knows of its pods' cgroups.
    """

    def __init__(
        self,
        *,
        netns_dir: Path,
        cgroups: PodCgroups | None,
        listener: Endpoint,
        host_listener: Endpoint = HOST,
        imds: Endpoint = IMDS,
    ) -> None:
        """`cgroups` None: cgroups are not asked, and no sighting names a pod."""
        _raise_file_limit()
        self._networks = PodNetworks(netns_dir)
        self._cgroups = cgroups
        self._listener = listener
        self._host_listener = host_listener
        self._imds = imds
        self._node = SockDiag()
        self._networks.refresh()

    @classmethod
    def open(
        cls,
        *,
        netns_dir: Path,
        cgroup_root: Path,
        listener: Endpoint,
        host_listener: Endpoint = HOST,
        imds: Endpoint = IMDS,
    ) -> Self:
        """Return the inspector for this node, by cgroups if this process, a pod's, is in a pod's.

        `listener` is where intercepted connections end (`Redirect.target`, its port),
        `host_listener` where those of the node itself do.
        """
        cgroups = _cgroups_of_pods(cgroup_root)
        return cls(
            netns_dir=netns_dir,
            cgroups=cgroups,
            listener=listener,
            host_listener=host_listener,
            imds=imds,
        )

    @property
    def by_cgroup(self) -> bool:
        """Whether sightings name the pod of the cgroup."""
        return self._cgroups is not None

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
        try:
            if not self._is_accepted(client, self._listener):
                return ConnectionFacts(accepted=False)
        except OSError as error:
            return ConnectionFacts(accepted=False, failure=str(error.strerror))
        self._networks.refresh()
        sightings = tuple(self._sighting(each, client) for each in self._networks.holders(address))
        return ConnectionFacts(accepted=True, sightings=sightings, failure=self._failure())

    def local_facts(self, address: str, port: int) -> ConnectionFacts:
        """Return the facts about the connection from `address`:`port` of the node itself.

        The node's own namespace is this process's: nobody else's socket can be found there.
        """
        client = Endpoint(address, port)
        try:
            if not self._is_accepted(client, self._host_listener):
                return ConnectionFacts(accepted=False)
            found = self._node.find(client, self._host_listener)
        except OSError as error:
            return ConnectionFacts(accepted=False, failure=str(error.strerror))
        return ConnectionFacts(accepted=True, sightings=(self._seen(_NODE, found),))

    def problems(self) -> tuple[str, ...]:
        """Return what keeps callers from being proven; () where all is well."""
        self._networks.refresh()
        return (self._networks.failure,) if self._networks.failure else ()

    async def follow(self) -> None:
        """Let go of the namespaces of pods that end, until cancelled; run it beside the service."""
        await self._networks.follow()

    def close(self) -> None:
        """Close every socket."""
        self._networks.close()
        self._node.close()
        if self._cgroups is not None:
            self._cgroups.close()

    def _failure(self) -> str:
        if self._networks.failure or len(self._networks):
            return self._networks.failure
        return "no pod's network namespace is to be seen"

    def _is_accepted(self, client: Endpoint, listener: Endpoint) -> bool:
        ours = self._node.find(listener, client)
        return ours is not None and ours.is_of_connection

    def _sighting(self, network: PodNetwork, client: Endpoint) -> Sighting:
        try:
            found = network.find(client, self._imds)
        except OSError as error:
            return Sighting(network=network.name, failure=str(error.strerror))
        return self._seen(network.name, found)

    def _seen(self, network: str, found: TcpSocket | None) -> Sighting:
        if found is None or not found.is_of_connection:
            return Sighting(network=network)
        if not found.is_open:
            return Sighting(network=network, state=SocketState.CLOSED, user=found.user)
        pod, failure = None, ""
        if self._cgroups is not None:
            try:
                pod = self._cgroups.pod(found.cgroup)
            except OSError as error:
                if error.errno == errno.ESTALE:
                    # Its cgroup is removed: the pod has ended, there is nobody to answer.
                    return Sighting(network=network, state=SocketState.CLOSED, user=found.user)
                failure = str(error.strerror)
        state = SocketState.OPEN
        return Sighting(network=network, state=state, pod=pod, user=found.user, failure=failure)


def _cgroups_of_pods(cgroup_root: Path) -> PodCgroups | None:
    """Return the tree if this process is in a pod's cgroup: then so are all pods of the node."""
    cgroups = PodCgroups.under(cgroup_root)
    if cgroups is None:
        _log.warning("no cgroup v2 at %s: callers are proven by namespace alone", cgroup_root)
        return None
    try:
        if cgroups.pod(_own_cgroup()):
            return cgroups
        why = "this process is in no pod's cgroup"
    except OSError as error:
        why = str(error.strerror)
    _log.warning("%s: callers are proven by namespace alone", why)
    cgroups.close()
    return None


def _own_cgroup() -> int:
    """Return this process's cgroup id, by a socket of its own: /proc hides it in containers."""
    diag = SockDiag()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            found = diag.find(Endpoint(*listening.getsockname()), Endpoint("0.0.0.0", 0))  # noqa: S104 - no peer
    finally:
        diag.close()
    return found.cgroup if found is not None else 0


def _raise_file_limit() -> None:
    """Allow as many files as the hard limit does: two for each pod, one for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
