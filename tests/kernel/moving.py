"""Scenario: the rules lead a pod to another port, and it comes again from a port that it had.

The kernel keeps what it knows of a connection for a while after its end, and with it where that was
led. After an end in order it forgets it for who begins anew, after a reset it does not.
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
        found[how] = await _again(port)
    return found


async def _again(port: int) -> str:
    _lead(_AFTER)
    with (
        socket.create_server(_AFTER.listener) as after,
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
