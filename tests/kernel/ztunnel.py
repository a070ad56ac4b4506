"""A stand-in for ztunnel of Istio's ambient mesh, as a program: it proxies one pod of its node.

As ztunnel it opens all its sockets in the pod's network namespace, stays outside of it itself,
listens on 15001 there, and connects to where the pod wanted to go, from the address that the pod
has, with the mark 0x539. The pod's packets come to it by the rules that istio-cni writes into the
pod's namespace. What mutual TLS it speaks with others of the mesh is not here: IMDS is none.

It writes a line once it serves, and ends with its standard input.

Sources: istio/ztunnel, src/inpod/config.rs and netns.rs (sockets), src/proxy/outbound.rs;
istio/istio, cni/pkg/iptables/iptables.go (ports, mark, rules of ISTIO_OUTPUT);
https://istio.io/latest/docs/ambient/architecture/traffic-redirection/
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from podidentity.kernel.namespaces import entered

OUTBOUND = 15001
MARK = 0x539
RULES = f"""
table ip istio {{
    chain output {{
        type nat hook output priority dstnat; policy accept;
        oifname lo ip daddr != 127.0.0.1 accept
        ip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != {MARK} redirect to :{OUTBOUND}
    }}
}}
"""
_ORIGINAL_DST = 80  # SO_ORIGINAL_DST, linux/netfilter_ipv4.h

Made = TypeVar("Made")


class Ztunnel:
    """The proxy of the pod whose network namespace is the file `netns`."""

    def __init__(self, netns: Path) -> None:
        self._netns = netns
        self._connections: set[asyncio.Task[None]] = set()

    def redirect(self) -> None:
        """Write the rules, as istio-cni does."""
        enter = ("nsenter", f"--net={self._netns}")
        subprocess.run([*enter, "nft", "-f", "-"], input=RULES, text=True, check=True)

    async def serve(self) -> None:
        """Accept the pod's connections until cancelled."""
        listening = self._inside(lambda: socket.create_server(("0.0.0.0", OUTBOUND)))  # noqa: S104
        server = await asyncio.start_server(self._accepted, sock=listening)
        print("ready", flush=True)  # noqa: T201 - who started it waits for it
        await server.serve_forever()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client: socket.socket = writer.get_extra_info("socket")
        port, address = struct.unpack_from(
            "!2xH4s", client.getsockopt(socket.SOL_IP, _ORIGINAL_DST, 16)
        )
        outward = self._inside(socket.socket)
        outward.setblocking(False)
        outward.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        outward.bind((client.getpeername()[0], 0))
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(outward, (socket.inet_ntoa(address), port))
            back, away = await asyncio.open_connection(sock=outward)
            await asyncio.gather(_copy(reader, away), _copy(back, writer))
        except OSError:
            outward.close()
        writer.close()

    def _inside(self, make: Callable[[], Made]) -> Made:
        fd = os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with entered(fd):
                return make()
        finally:
            os.close(fd)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--netns", type=Path, required=True)
    parser.add_argument("--cgroup", type=Path, help="of the proxy's own container")
    given = parser.parse_args()
    if given.cgroup:
        (given.cgroup / "cgroup.procs").write_text("0")
    proxy = Ztunnel(given.netns)
    proxy.redirect()
    serving = asyncio.create_task(proxy.serve())
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    os._exit(0)  # connections are not waited for


if __name__ == "__main__":
    asyncio.run(_main())
