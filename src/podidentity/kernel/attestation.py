"""An address is a claim; the socket is the proof. This is where the kernel is asked for it.

A pod can send packets with its neighbour's address (ARP poisoning, a stolen MAC address, a second
address), and hold a whole conversation with them. But it cannot make a socket in the neighbour's
network namespace, under the neighbour's cgroup: so for each connection that NMI accepted, the
namespaces that hold the address are asked whether that connection's socket is theirs, and whose.

What this does not prove: who reads along. A pod that puts itself between its neighbour and the
node by ARP sees the neighbour's own, proven connections; only a filter on the bridge closes that.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from podidentity.core.ports import Proof, Verdict
from podidentity.core.resources import Pod
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.diag import Endpoint, TcpSocket
from podidentity.kernel.inquiry import SocketInquiry
from podidentity.kernel.podnets import PodNetwork, PodNetworks
from podidentity.kernel.verdicts import Sighting, judge

_log = logging.getLogger(__name__)

_ROOT = 0
IMDS = Endpoint("169.254.169.254", 80)


class KernelAttestor:
    """Proves callers by their sockets. Implements `core.ports.Attestor`.

    Use `open` for a node; the constructor is for those who know how its pods' cgroups are.
    """

    def __init__(
        self,
        *,
        netns_dir: Path,
        cgroups: PodCgroups | None,
        listener: Endpoint,
        imds: Endpoint = IMDS,
    ) -> None:
        _raise_file_limit()
        self._networks = PodNetworks(netns_dir)
        self._cgroups = cgroups
        self._listener = listener
        self._imds = imds
        self._own = SocketInquiry()
        self._networks.refresh()

    @classmethod
    def open(
        cls, *, netns_dir: Path, cgroup_root: Path, listener: Endpoint, imds: Endpoint = IMDS
    ) -> Self:
        """Return the attestor for this node, by cgroups if this process, a pod's, is in a pod's.

        `listener` is where intercepted connections end (`Redirect.target`, its port).
        """
        cgroups = _cgroups_of_pods(cgroup_root)
        return cls(netns_dir=netns_dir, cgroups=cgroups, listener=listener, imds=imds)

    @property
    def by_cgroup(self) -> bool:
        """Whether the proof includes the cgroup; otherwise it is by namespace alone."""
        return self._cgroups is not None

    def prove(self, address: str, port: int, candidates: Sequence[Pod]) -> Proof:
        """Ask the kernel whose the connection from `address`:`port` to IMDS is.

        An ordinary one takes two questions (socket, cgroup). One that is not found takes another
        look at what has changed, once: a flood of forged connections costs no more than that each.
        """
        try:
            socket.inet_pton(socket.AF_INET, address)
        except OSError:
            return Proof(verdict=Verdict.FORGED, detail="IMDS has an IPv4 address only")
        claimed = Endpoint(address, port)
        if self._cgroups is None:
            # Whether just one namespace holds the address must be known as of now.
            self._networks.refresh()
        proof = judge(self._sightings(claimed), candidates)
        if (proof is None or proof.verdict is not Verdict.PROVEN) and self._networks.refresh():
            proof = judge(self._sightings(claimed), candidates)
        return proof or self._not_found(claimed)

    def prove_local(self, address: str, port: int) -> Proof:
        """Ask the kernel whose the connection from `address`:`port` of the node itself is.

        The node's own namespace is this process's: nobody else's socket can be found there.
        """
        claimed = Endpoint(address, port)
        try:
            found = self._own.find(claimed, self._listener)
            if found is None or not found.is_open:
                return self._not_open(found, claimed)
            pod = self._pod(found) or ""
        except OSError as error:
            if error.errno == errno.ESTALE:
                return Proof(verdict=Verdict.GONE, detail="its cgroup is removed")
            return Proof(verdict=Verdict.UNKNOWN, detail=str(error.strerror))
        detail = f"pod {pod}" if pod else f"a process of user {found.user}"
        root = found.user == _ROOT
        return Proof(verdict=Verdict.PROVEN, pod_uid=pod, root=root, detail=detail)

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
        self._own.close()
        if self._cgroups is not None:
            self._cgroups.close()

    def _sightings(self, claimed: Endpoint) -> list[Sighting]:
        return [self._sighting(each, claimed) for each in self._networks.holders(claimed.address)]

    def _sighting(self, network: PodNetwork, claimed: Endpoint) -> Sighting:
        found = None
        try:
            found = network.find(claimed, self._imds)
            return Sighting(network=network.name, socket=found, pod=self._pod(found))
        except OSError as error:
            if error.errno == errno.ESTALE and found is not None:
                # Its cgroup is removed: the pod has ended, there is nobody to answer.
                return Sighting(network=network.name, socket=found._replace(inode=0))
            return Sighting(network=network.name, socket=found, failure=str(error.strerror))

    def _pod(self, found: TcpSocket | None) -> str | None:
        if self._cgroups is None or found is None or not found.is_open:
            return None
        return self._cgroups.pod(found.cgroup)

    def _not_open(self, found: TcpSocket | None, claimed: Endpoint) -> Proof:
        ours = self._own.find(self._listener, claimed)
        if found is None and ours is not None and ours.is_of_connection:
            return Proof(verdict=Verdict.FORGED, detail="no socket of this connection on the node")
        return Proof(verdict=Verdict.GONE, detail="closed by the client")

    def _not_found(self, claimed: Endpoint) -> Proof:
        """Return the verdict on a connection whose client end is in no namespace of a pod."""
        if self._networks.failure or not len(self._networks):
            why = self._networks.failure or "no pod's network namespace is to be seen"
            return Proof(verdict=Verdict.UNKNOWN, detail=why)
        try:
            ours = self._own.find(self._listener, claimed)
        except OSError as error:
            return Proof(verdict=Verdict.UNKNOWN, detail=str(error.strerror))
        if ours is None or not ours.is_of_connection:
            # An honest client that resets leaves as little behind as an attacker: no alarm.
            return Proof(verdict=Verdict.GONE, detail="reset by the client")
        holders = ", ".join(sorted(each.name for each in self._networks.holders(claimed.address)))
        where = f"in {holders}" if holders else "in any pod: no network namespace has the address"
        return Proof(verdict=Verdict.FORGED, detail=f"no socket of this connection {where}")


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
    inquiry = SocketInquiry()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            found = inquiry.find(Endpoint(*listening.getsockname()), Endpoint("0.0.0.0", 0))  # noqa: S104 - no peer
    finally:
        inquiry.close()
    return found.cgroup if found is not None else 0


def _raise_file_limit() -> None:
    """Allow as many files as the hard limit does: two for each pod, one for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
