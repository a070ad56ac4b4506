"""Scenarios: the rules lead pods to another port, and an agent yields them to the next.

A pod comes again from a port that it had. The kernel keeps what it knows of a connection for a
while after its end, and with it where that was led. After an end in order it forgets it for who
begins anew, after a reset it does not.
"""

from __future__ import annotations

import contextlib
import socket

from podidentity.kernel.interception import Interception
from podidentity.kernel.rules import Redirect
from tests.kernel.agent import WallClock
from tests.kernel.topology import IMDS, connected, inside

_BEFORE, _AFTER = Redirect(listen_port=2579), Redirect(listen_port=2580)


async def moving() -> dict[str, str]:
    """Return who answers it after each end of its connection to the port before."""
    found: dict[str, str] = {}
    for port, how in ((40000, "answered"), (40002, "reset")):
        _lead(_BEFORE)
        with socket.create_server(_BEFORE.listener) as before, inside("p1", socket.socket) as pod:
            pod.bind(("", port))
            await connected(pod, IMDS, 3)
            if how == "answered":
                before.accept()[0].close()
                pod.setblocking(True)
                assert pod.recv(1) == b""
            before.close()  # and resets who was not accepted, before the pod ends anything itself
        _lead(_AFTER)
        found[how] = await _again(port)
    return found


async def yielding() -> dict[str, str]:
    """Return who answers a pod while both agents live, and when the next has released the rules."""
    found: dict[str, str] = {}
    with (
        contextlib.closing(Interception(_BEFORE, WallClock())) as before,
        contextlib.closing(Interception(_AFTER, WallClock())) as after,
    ):
        before.install()
        before.yield_rules()
        after.install()
        found["both"] = await _again(40000)
        after.release(closed=True)
        found["released"] = await _again(40002)
        before.install()
        found["back"] = await _again(40004, _BEFORE)
    return found


async def _again(port: int, at: Redirect = _AFTER) -> str:
    """Return "the next" if who listens there is reached, else the error."""
    with (
        socket.create_server(at.listener) as after,
        inside("p1", socket.socket) as pod,
    ):
        pod.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        pod.bind(("", port))
        try:
            await connected(pod, IMDS, 3)
        except OSError as error:
            return type(error).__name__
        accepted, (_, came_from) = after.accept()
        accepted.close()
        assert came_from == port
        return "the next"


def _lead(redirect: Redirect) -> None:
    with contextlib.closing(Interception(redirect, WallClock(), copy=False)) as interception:
        interception.install()
