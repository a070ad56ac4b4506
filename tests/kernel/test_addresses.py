"""The conversation about a namespace's addresses, with a kernel that a test plays."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from podidentity.kernel import netlink
from podidentity.kernel.addresses import Addresses

_NEW_ADDRESS, _LOCAL = 20, 2
Event = bytes | int


class Kernel:
    """Answers the n-th question with the n-th list: datagrams, and numbers of errors."""

    def __init__(self, *answers: list[Event]) -> None:
        self._answers = iter(answers)
        self._coming: Iterator[Event] = iter(())
        self.questions = 0

    def send(self, _question: bytes) -> None:
        self.questions += 1
        self._coming = iter(next(self._answers))

    def recv(self, _size: int) -> bytes:
        event = next(self._coming, None)
        if event is None:
            raise BlockingIOError
        if isinstance(event, int):
            raise OSError(event, "played")
        return event


def told(address: str, sequence: int) -> bytes:
    """Return an address of interface 2, as an answer or (sequence 0) as a notice."""
    payload = struct.pack("=BBBBi", socket.AF_INET, 24, 0, 0, 2)
    payload += netlink.attribute(_LOCAL, socket.inet_aton(address))
    return netlink.encode(_NEW_ADDRESS, 0, sequence, payload)


def done(sequence: int) -> bytes:
    return netlink.encode(netlink.NLMSG_DONE, 0, sequence, b"\0\0\0\0")


def read(kernel: Kernel) -> dict[str, int]:
    known = Addresses()
    known.close()
    known.notices = kernel  # type: ignore[assignment]
    return known.read()


OLD, NEW = "127.0.0.1", "10.244.0.2"


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param(told(NEW, 0), id="a notice"),
        pytest.param(errno.ENOBUFS, id="a notice for which there was no room"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_an_address_that_comes_while_they_are_read_is_not_missed(
    meanwhile: Event, first: bool
) -> None:
    answer: list[Event] = [told(OLD, 1), done(1)]
    answer.insert(0 if first else 1, meanwhile)
    kernel = Kernel(answer, [told(OLD, 2), told(NEW, 2), done(2)])
    assert read(kernel) == {OLD: 2, NEW: 2}


def test_addresses_that_do_not_change_are_read_once() -> None:
    kernel = Kernel([told(OLD, 1) + told(NEW, 1), done(1)])
    assert read(kernel) == {OLD: 2, NEW: 2}
    assert kernel.questions == 1


def test_addresses_that_change_all_the_time_keep_nobody() -> None:
    answers: list[list[Event]] = [[errno.ENOBUFS, told(OLD, n), done(n)] for n in (1, 2, 3)]
    assert read(Kernel(*answers)) == {OLD: 2}
