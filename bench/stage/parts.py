"""The API server and Azure that the agent asks: the sandbox's own programs, strict as they are."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.stage.ground import AZURE, inside
from podidentity_sandbox.plan import (
    APISERVER_ADDRESS,
    AZURE_ADDRESS,
    DNS_ADDRESS,
    IMDS_ADDRESS,
    Plan,
)
from podidentity_sandbox.world.authority import write_certificates
from podidentity_sandbox.world.blueprint import Shape, draw_plan, write_kubeconfig
from podidentity_sandbox.world.network import listen_tcp, listen_udp

_HOSTS = f"127.0.0.1 localhost\n{AZURE_ADDRESS} login.microsoftonline.com management.azure.com\n"


@contextlib.contextmanager
def parts(folder: Path) -> Iterator[Plan]:
    """Run both while the context is open; their logs are in `folder`."""
    with contextlib.ExitStack() as stack:
        api, proxy = (stack.enter_context(listen_tcp("127.0.0.1", 0)) for _ in range(2))
        plan = draw_plan(
            "bench",
            folder,
            Shape(nodes=1),
            apiserver_port=api.getsockname()[1],
            azure_proxy_port=proxy.getsockname()[1],
        )
        plan.save()
        write_certificates(plan)
        write_kubeconfig(plan)
        _names(folder)
        # Entra reads the cluster's keys where anybody can.
        public = stack.enter_context(inside(AZURE, lambda: listen_tcp(APISERVER_ADDRESS, 443)))
        options = ["--listen-fd", "--listen-fd"]
        stack.enter_context(_program(folder, "cluster", options, [api, public]))
        imds = stack.enter_context(inside(AZURE, lambda: listen_tcp(IMDS_ADDRESS, 80)))
        https = stack.enter_context(inside(AZURE, lambda: listen_tcp(AZURE_ADDRESS, 443)))
        dns = stack.enter_context(inside(AZURE, lambda: listen_udp(DNS_ADDRESS, 53)))
        options = ["--imds-fd", "--https-fd", "--dns-fd", "--proxy-fd"]
        stack.enter_context(_program(folder, "azure", options, [imds, https, dns, proxy]))
        yield plan


def _names(folder: Path) -> None:
    """Let Azure's names lead to the sandbox's Azure, for this mount namespace alone."""
    hosts = folder / "hosts"
    hosts.write_text(_HOSTS)
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


@contextlib.contextmanager
def _program(
    folder: Path, part: str, options: Sequence[str], sockets: Sequence[socket.socket]
) -> Iterator[None]:
    reader, writer = os.pipe()
    fds = [*(each.fileno() for each in sockets), writer]
    pairs = zip([*options, "--ready-fd"], fds, strict=True)
    module = [sys.executable, "-m", f"podidentity_sandbox.{part}", "--folder", str(folder)]
    with (folder / f"{part}.log").open("wb") as log:
        process = subprocess.Popen(
            [*module, *(word for option, fd in pairs for word in (option, str(fd)))],
            pass_fds=fds,
            stdout=log,
            stderr=log,
        )
    os.close(writer)
    try:
        if os.read(reader, 64) != b"ready\n":
            sys.exit(f"{part} did not start:\n{(folder / f'{part}.log').read_text()[-2000:]}")
        yield
    finally:
        os.close(reader)
        process.terminate()
        process.wait()


def process_of(module: str) -> int:
    """Return the process that runs one of the sandbox's programs."""
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if module.encode() in found.read_bytes().split(b"\0"):
                return int(found.parent.name)
    raise ProcessLookupError(f"{module} does not run")
