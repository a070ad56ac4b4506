"""Finds the facts about a connection: the client's socket, and the cgroup that it belongs to.

A pod can send packets from its neighbour's address (ARP poisoning, a stolen MAC address, a second
address), and hold a whole conversation with them. But it cannot create a socket in the neighbour's
network namespace and cgroup. So for each accepted connection we search the network namespaces that
have the client's address for the client's socket. `core.attestation` judges the results.

This does not detect eavesdropping. A pod that poisons ARP can read its neighbour's connections,
although their proof is right. Only the filter on the bridge prevents that (`source_guard`).

The socket must also be the other end of this very connection (`difference`). Two sockets with the
same addresses and ports may belong to different connections. A client can keep its socket of an old
connection for as long as it likes (CLOSE_WAIT, or ESTABLISHED if our FIN or RST never arrived),
while the node forgets its own end within a minute. An attacker who can send packets from that
address and port then opens a new connection, and the old socket would prove it.

This check is a second barrier: it compares states, byte counts and times of both ends (`struct
tcp_info`). The first barrier is the source guard, because of which nobody else has the address.

Nor may it be the socket of a server. An attacker who can send in the name of IMDS can connect to a
server of the pod. That socket has the right ends, and has sent bytes if the server speaks first
(SSH, SMTP, databases). So where sources are not guarded nobody may listen at the client's port.

An honest client passes: with retransmissions (the kernel counts them as sent), with pipelined
requests (the client may have sent more than we have received), after any time in our backlog (both
ends have the same age), with a zero window, and after it has shut down its own side.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Self
from weakref import WeakKeyDictionary

from podidentity.core.attestation import AttestationMode, ConnectionFacts, Sighting, SocketState
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.namespaces import (
    NamespaceKey,
    gets_mounts,
    unpropagated,
    without_namespace,
)
from podidentity.kernel.podnets import PodNetwork, PodNetworks
from podidentity.kernel.sock_diag import Endpoint, SockDiag, TcpInfo, TcpSocket, TcpState

IMDS = Endpoint("169.254.169.254", 80)
MARK = Endpoint("127.0.0.1", 2578)
"""Where the probe pod listens, in its own network only: the socket shows whose namespace it is."""
_NOWHERE = Endpoint("0.0.0.0", 0)  # noqa: S104 - the other end of a socket that listens
_NODE = "the node's network"
_STILL_OURS = frozenset({TcpState.ESTABLISHED, TcpState.CLOSE_WAIT})
"""States of our socket before we close it."""

SLACK_MS = 2000
"""Allowed difference of times: packets can wait in a queue of the pod, and this process can be
descheduled between the two questions."""

CLIENTS_SECONDS = 10.0
"""For so long a namespace is known as that of the one pod that had a client there beside a proxy.
To list clients takes milliseconds; and a network namespace is one pod's for as long as it is."""

_CLIENT_STATES = frozenset({TcpState.ESTABLISHED, TcpState.FIN_WAIT1, TcpState.FIN_WAIT2})
"""In the last two states the client has shut down its own side and still reads."""


class NoCounters(OSError):
    """The kernel does not report the number of bytes that a socket has sent."""

    def __init__(self) -> None:
        super().__init__(
            errno.EOPNOTSUPP,
            "the kernel does not count what a socket has sent (tcpi_bytes_sent): "
            "the proof needs Linux 4.19 or later",
        )


class _Clients(NamedTuple):
    """Whose clients of IMDS a namespace had."""

    pods: tuple[str, ...]
    until: float
    """When they must be listed anew, in seconds of `time.monotonic`."""

    def show_one_beside(self, pod: str) -> bool:
        """Whether there was one pod's beside those of `pod`, and nobody else's."""
        others = set(self.pods) - {pod}
        return len(others) == 1 and "" not in others


class ConnectionInspector:
    """Inspects accepted connections."""

    def __init__(
        self,
        *,
        netns_dirs: Sequence[Path],
        cgroups: PodCgroups | None,
        listener: Endpoint,
        imds: Endpoint = IMDS,
        node_listener: Endpoint | None = None,
    ) -> None:
        """Without `cgroups` no sighting names a pod.

        `listener` is the local end of redirected connections (`Redirect.target`). Connections of
        the node itself have the same port at other addresses, and so have those that the rules of
        the NMI before led to one. `node_listener` is the local end of those that Cilium redirects.
        """
        _raise_file_limit()
        self._netns_dirs = netns_dirs
        self._networks = PodNetworks(*netns_dirs)
        self._cgroups = cgroups
        self._listener = listener
        self._node_listener = node_listener
        self._imds = imds
        self._node = SockDiag()
        self.bound_to: Callable[[str], NamespaceKey | None] = lambda _: None
        """Returns the only namespace that can send from an address; None if it is not known."""
        self.guarded: Callable[[], bool] = lambda: False
        """Returns whether no pod can send from the address of another."""
        self._no_network = False
        """Whether a pod connected while no network namespace was visible."""
        self._unpropagated = ""
        """Result of the last check for missing mount propagation."""
        self._clients: WeakKeyDictionary[PodNetwork, _Clients] = WeakKeyDictionary()
        self._without_mounts = _without_mounts(netns_dirs)
        """Folders that do not receive the node's later mounts, as of the last check."""
        self._pods_seen = self._strangers_seen = 0
        """Number of sockets in pods' namespaces with a pod's cgroup, and with another."""
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
        node_listener: Endpoint | None = None,
    ) -> Self:
        cgroups = PodCgroups(cgroup_root) if mode is AttestationMode.KERNEL else None
        return cls(
            netns_dirs=netns_dirs,
            cgroups=cgroups,
            listener=listener,
            imds=imds,
            node_listener=node_listener,
        )

    @property
    def networks(self) -> PodNetworks:
        return self._networks

    def facts(
        self, address: str, port: int, own: str = "", *, clients: bool = False
    ) -> ConnectionFacts:
        """Return the facts about the connection from `address`:`port` to IMDS.

        `own` is our address of it, "" for that of redirected connections. Costs about ten system
        calls if one namespace has the address, plus those for namespaces that are new or changed
        since the last call. With `clients` also those for the clients of a namespace that has the
        socket.
        """
        listener = Endpoint(own, self._listener.port) if own else self._listener
        try:
            socket.inet_pton(socket.AF_INET, address)
            socket.inet_pton(socket.AF_INET, listener.address)
        except OSError:
            # IMDS has an IPv4 address only.
            return ConnectionFacts(accepted=False)
        client = Endpoint(address, port)
        self._networks.refresh()
        holders = self._holders(address)
        found = self._facts(client, listener, holders, self._failure())
        states = [each.state for each in found.sightings]
        if SocketState.OPEN in states and not clients:
            return found
        if clients and found.accepted:
            sightings = map(self._with_clients, found.sightings, holders)
            found = found._replace(sightings=tuple(sightings))
        count = len(self._networks.holders(address))
        return found._replace(holders=count, guarded=self.guarded())

    def local_facts(self, address: str, port: int, own: str) -> ConnectionFacts:
        """Return the facts about the connection from `address`:`port` of the node itself to `own`.

        The socket is in our own namespace, where pods of other namespaces have none. But two
        processes can connect from the same address and port to different addresses of ours.
        """
        try:
            socket.inet_pton(socket.AF_INET, address)
            socket.inet_pton(socket.AF_INET, own)
        except OSError:
            return ConnectionFacts(accepted=False)
        return self._facts(Endpoint(address, port), Endpoint(own, self._listener.port), (None,), "")

    def bound_socket(self, address: str, pod: str = "") -> socket.socket | str:
        """Return a TCP socket at a port of this address, in the namespace that has it.

        Or why there is none, as a clause. Where cgroups are asked, the probe pod with the uid `pod`
        must listen at `MARK` there: another pod can have its address, but no socket of its cgroup.
        """
        try:
            socket.inet_pton(socket.AF_INET, address)
        except OSError:
            return f"{address} is no IPv4 address"
        self._networks.refresh()
        holders = list(self._holders(address))
        try:
            if pod and self._cgroups is not None:
                holders = [each for each in holders if self._is_of(each, pod)]
            if len(holders) != 1:
                return self._failure() or _not_one(len(holders), address, pod)
            made = self._networks.tcp_socket(holders[0])
            try:
                made.bind((address, 0))
            except OSError:
                made.close()
                raise
        except OSError as error:
            return str(error.strerror)
        return made

    def problems(self) -> tuple[str, ...]:
        self._networks.refresh()
        self._unpropagated = next(filter(None, map(unpropagated, self._netns_dirs)), "")
        self._without_mounts = _without_mounts(self._netns_dirs)
        found = [self._networks.failure, self._without_networks(), self._unpropagated]
        if self._cgroups is not None:
            found += [self._cgroups.check(), self._without_pods()]
        return tuple(filter(None, found))

    async def follow(self) -> None:
        """Close the namespaces of pods that end, until cancelled."""
        await self._networks.follow()

    def close(self) -> None:
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
        """Compare both ends: ours first, so that the client has sent all that we have received.

        Compare again if they differ, because we may have sent something in between.
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
            if not [each for each in sightings if each.doubt]:
                break
        return ConnectionFacts(accepted=True, sightings=sightings, failure=failure)

    def _holders(self, address: str) -> Collection[PodNetwork]:
        """Return the namespaces that have an address: the one that can send from it, if known."""
        holders = self._networks.holders(address)
        bound = self.bound_to(address)
        return holders if bound is None else [each for each in holders if each.key == bound]

    def _is_of(self, network: PodNetwork, pod: str) -> bool:
        """Whether a process of the pod listens at `MARK` in a namespace; raise OSError."""
        found = network.find(MARK, _NOWHERE)
        return bool(found and self._cgroups and self._cgroups.pod(found.cgroup) == pod)

    def _failure(self) -> str:
        if self._networks.failure:
            return self._networks.failure
        self._no_network = not len(self._networks)
        if self._no_network:
            return self._without_networks()
        return self._unpropagated or (self._unseen() if self._without_mounts else "")

    def _unseen(self) -> str:
        """Say at once that a namespace does not come here: its pod is no forger."""
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
        """Look for the client's socket in a pod's network, or in the node's (`network` None)."""
        name = network.name if network else _NODE
        opened: list[TcpSocket] = []
        closed: TcpSocket | None = None
        try:
            for end in self._other_ends(listener) if network else (listener,):
                found = (network or self._node).find(client, end)
                if found is None or not found.is_of_connection:
                    continue
                if found.is_open:
                    opened.append(found)
                else:
                    closed = closed or found
            if opened:
                sound, doubt = other_end(opened, ours)
                if not doubt and network is not None and not self.guarded():
                    doubt = _welcome(network, client)
                return self._open(name, sound, doubt)
            if closed is None:
                return Sighting(network=name)
            return Sighting(network=name, state=SocketState.CLOSED, user=closed.user)
        except OSError as error:
            return Sighting(network=name, failure=str(error.strerror))

    def _other_ends(self, listener: Endpoint) -> tuple[Endpoint, ...]:
        """Return what a pod's socket may be connected to, whose connection arrives at `listener`.

        Cilium redirects packets, so that the socket is one to IMDS, or the call of connect(2)
        (socket load balancing): then it is one to the node's address. So is that of a pod which
        connects there itself. It is proved as any other.
        """
        return (self._imds, listener) if listener == self._node_listener else (self._imds,)

    def _with_clients(self, sighting: Sighting, network: PodNetwork) -> Sighting:
        """Add whose clients of IMDS the network has, if the socket is open there."""
        if sighting.state is not SocketState.OPEN or sighting.pod is None:
            return sighting
        now = time.monotonic()
        known = self._clients.get(network)
        if known is None or now >= known.until or not known.show_one_beside(sighting.pod):
            try:
                pods = {self._pod(each.cgroup) for each in network.clients_of(self._imds, now)}
            except OSError as error:
                return sighting._replace(failure=str(error.strerror))
            found = tuple(sorted(each for each in pods if each is not None))
            known = _Clients(found, now + CLIENTS_SECONDS)
            self._clients[network] = known
        return sighting._replace(clients=known.pods)

    def _pod(self, cgroup: int) -> str | None:
        """Return the pod of a cgroup; None if the cgroup is removed; raise OSError."""
        assert self._cgroups is not None  # noqa: S101 - who asks has found a pod by them
        try:
            return self._cgroups.pod(cgroup)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return None

    def _open(self, name: str, found: TcpSocket, doubt: str) -> Sighting:
        pod = None
        if self._cgroups is not None:
            pod = self._pod(found.cgroup)
            if pod is None:  # its pod has ended
                return Sighting(network=name, state=SocketState.CLOSED, user=found.user)
        if pod is not None and name != _NODE:
            self._pods_seen += pod != ""
            self._strangers_seen += pod == ""
        state = SocketState.OPEN
        return Sighting(network=name, state=state, pod=pod, user=found.user, doubt=doubt)


def _not_one(count: int, address: str, pod: str) -> str:
    if count:
        return f"{count} network namespaces have the address {address}"
    what = "in which the program of the probe pod runs" if pod else "of a pod"
    return f"no network namespace {what} has the address {address}"


def _welcome(network: PodNetwork, client: Endpoint) -> str:
    """Return that the socket may be a server's, which an attacker has called; "" if it is not.

    A port at which somebody listens is not given to who connects (`__inet_hash_connect` in
    net/ipv4/inet_hashtables.c). Raises OSError.
    """
    found = network.find(client, _NOWHERE)
    if found is None or found.state != TcpState.LISTEN:
        return ""
    return "somebody listens at its port, so it may have been called and not have called"


def _without_mounts(folders: Sequence[Path]) -> frozenset[Path]:
    try:
        return frozenset(each for each in folders if not gets_mounts(each))
    except OSError:
        return frozenset()  # `PodNetworks` reports a folder that cannot be read.


def _raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: each pod needs two files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def other_end(opened: Sequence[TcpSocket], ours: TcpSocket) -> tuple[TcpSocket, str]:
    """Return which of a namespace's sockets may be the other end of `ours`; else one, and why not.

    Two with the same port differ in what they are connected to. If both may be it, none is.
    """
    judged = [(each, difference(each, ours)) for each in opened]
    sound = [each for each in judged if not each[1]]
    if len(sound) > 1:
        return sound[0][0], "another of the same port may be this connection's as well"
    return sound[0] if sound else judged[0]


def difference(client: TcpSocket, ours: TcpSocket) -> str:
    """Return why `client` is not the other end of `ours`; "" if it may be.

    The kernel must have been asked for `ours` first.

    Raises NoCounters.
    """
    if client.state not in _CLIENT_STATES:
        return "it has received the end of a connection, and we have sent none"
    if client.info is None or ours.info is None:
        raise NoCounters
    # A FIN counts as a received byte (tcp_rcv_nxt_update), and not as a sent one.
    half_closed = ours.state == TcpState.CLOSE_WAIT
    arrived = ours.info.bytes_received - half_closed
    return _difference_of_bytes(client.info, ours.info, arrived) or _difference_of_times(
        client.info, ours.info, arrived
    )


def _difference_of_bytes(client: TcpInfo, ours: TcpInfo, arrived: int) -> str:
    if client.bytes_sent < arrived:
        return f"it has sent {client.bytes_sent} bytes, and {arrived} have arrived"
    sent = ours.bytes_sent - ours.bytes_retrans
    if not ours.bytes_acked <= client.bytes_received <= sent:
        return f"it has received {client.bytes_received} bytes, and we have sent {sent}"
    return ""


def _difference_of_times(client: TcpInfo, ours: TcpInfo, arrived: int) -> str:
    """Compare ages in milliseconds.

    A socket that has sent no data reports the age of its connection as the time since it last sent
    some (tcp_create_openreq_child).
    """
    if arrived and client.last_data_sent > ours.last_data_recv + SLACK_MS:
        return "it sent its last data before the last that has arrived"
    if not ours.bytes_sent and client.last_ack_recv > ours.last_data_sent + SLACK_MS:
        return "it received its last acknowledgement before the connection began"
    return ""
