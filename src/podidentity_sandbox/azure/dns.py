"""The DNS of the sandbox's world: Azure's names, the API server's, and NXDOMAIN for all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from podidentity_sandbox.plan import APISERVER_ADDRESS, AZURE_ADDRESS

APISERVER_NAMES = ("kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
TTL = 5
"""Seconds: short, because vaults come and go."""


def answer(query: bytes, is_azure: Callable[[str], bool]) -> bytes | None:
    """Return the answer to one datagram, or None where there is nothing to answer."""
    try:
        asked = dns.message.from_wire(query)
    except (dns.exception.DNSException, ValueError):
        return None
    if asked.flags & dns.flags.QR or len(asked.question) != 1:
        return None
    response = dns.message.make_response(asked, recursion_available=True)
    if asked.opcode() != dns.opcode.QUERY:
        response.set_rcode(dns.rcode.NOTIMP)
        return response.to_wire()
    question = asked.question[0]
    address = _address(question.name.to_text(omit_final_dot=True).lower(), is_azure)
    if address is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A and question.rdclass == dns.rdataclass.IN:
        response.answer.append(dns.rrset.from_text(question.name, TTL, "IN", "A", address))
    return response.to_wire()


def _address(name: str, is_azure: Callable[[str], bool]) -> str | None:
    if name in APISERVER_NAMES:
        return APISERVER_ADDRESS
    return AZURE_ADDRESS if is_azure(name) else None


class Resolver(asyncio.DatagramProtocol):
    """Answers on a UDP socket."""

    def __init__(self, is_azure: Callable[[str], bool]) -> None:
        self._is_azure = is_azure
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own class is no DatagramTransport by inheritance before Python 3.13.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        reply = answer(data, self._is_azure)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)
