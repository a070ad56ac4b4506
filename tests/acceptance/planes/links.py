"""A pod's link on its node, and programs of the kernel at it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from podidentity_sandbox.node.client import execute
from tests.acceptance.sandbox import Sandbox
from tests.docs.blocks import ROOT


def link_of(place: Sandbox, loop: asyncio.Runner, namespace: str, pod: str) -> str:
    """Return the node's end of a pod's link."""
    show = execute(place.plan, namespace, pod, ["ip", "-j", "link", "show", "eth0"])
    (inside,) = json.loads(loop.run(show).stdout)
    links = json.loads(place.on_node("ip", "-j", "link"))
    (name,) = [each["ifname"] for each in links if each["ifindex"] == inside["link_index"]]
    return str(name)


@contextmanager
def host_routing(place: Sandbox, link: str, *kind: str) -> Iterator[None]:
    """Have a program in the kernel send the requests of a pod's link past netfilter."""
    enter = ("nsenter", "--target", str(place.node_process()), "--net", "--")
    program = (sys.executable, "-m", "tests.acceptance.planes.host_routing")
    with subprocess.Popen(
        (*enter, *program, link, "eth0", *kind),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        assert running.stdout.readline() == b"attached\n"
        yield
        running.stdin.close()
