"""A port that somebody else has is said, with who it may be."""

from __future__ import annotations

import socket

import pytest

from podidentity.nmi.reporting.probes import Probes
from podidentity.nmi.server.listener import Listener
from podidentity.supervisor.listeners import ListenError
from tests.fakes import FakeClock


async def test_a_port_that_is_taken_is_named_with_the_way_to_find_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as refusal:
            await Listener.start(Probes({}, FakeClock()), "127.0.0.1", port)
    said = str(refusal.value)
    assert said.startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use. ")
    assert f"`ss -ltnp 'sport = :{port}'`" in said


async def test_an_address_that_the_node_does_not_have_is_named() -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        await Listener.start(Probes({}, FakeClock()), "192.0.2.1", 0)
