"""Scenarios: programs of another nft read the rules, and another release of ours replaces them.

The node's own `nft` may be older than the library that writes the rules. kube-proxy calls it in
nftables mode, and writes no rule while it crashes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from podidentity.kernel.nftables import Nftables, transaction
from podidentity.kernel.rules import Redirect, RedirectTable
from tests.kernel.topology import PODS, Agent, Imds, ask, command

_RULES_0_2 = Path(__file__).with_name("rules_0_2.json")
"""Tables of release 0.2 as it gave them to libnftables, without the elements of their sets."""
LIBRARIES = "usr/lib/x86_64-linux-gnu"
_ALL_RULES = Redirect(node_address="10.240.0.4")
"""Settings under which NMI writes every kind of rule, `--backend=lrp` included."""
_UPLINK = (
    "ip link add vx type vxlan id 1 dstport 4789 local 10.240.0.4; ip link set vx master cbr0 up"
)
_KUBE_PROXY = (
    "add table ip kube-proxy; add map ip kube-proxy service-ips"
    " { type ipv4_addr . inet_proto . inet_service : verdict; }; delete table ip kube-proxy"
)
_READINGS = {
    "list tables": ["list", "tables"],
    "list ruleset": ["list", "ruleset"],
    "list ruleset in JSON": ["-j", "list", "ruleset"],
    "write a table": [_KUBE_PROXY],
}


async def readers(*, old: str, writer: str) -> dict[str, Any]:
    """Return the exit statuses of both nft programs on the rules that one of the libraries wrote.

    `old` is the folder of the unpacked packages. The other nft is the machine's.
    """
    found: dict[str, Any] = {}
    await command("sh", "-ec", _UPLINK)
    settings = {"redirect": {"node_address": _ALL_RULES.node_address}, "source_guard": True}
    with _library(old, writer):
        async with Agent.running(**settings) as agent:
            found["agent"] = [await agent.tell("sources"), await agent.tell("problems")]
            found["pods"] = [(await ask(pod, "/"))["verdict"] for pod in PODS]
            for reader in ("old", "newest"):
                with _library(old, reader):
                    found[f"{reader} nft"] = _exit_statuses(old if reader == "old" else "")
    before = await _handles()
    for reader in ("old", "newest"):
        with _library(old, reader):
            found[f"differences for the {reader} library"] = json.loads(
                await command(sys.executable, "-m", "tests.kernel.readers")
            )
    other = "newest" if writer == "old" else "old"
    with _library(old, other):
        async with Agent.running(guard=False, **settings) as agent:
            found["next agent"] = [await agent.tell("sources"), await agent.tell("problems")]
    after = await _handles()
    found["kept tables"] = sorted(" ".join(key) for key in before if before[key] == after.get(key))
    return found


async def _handles() -> dict[tuple[str, str], int]:
    """Return the handle of each table: a table that is replaced has another."""
    listed = json.loads(await command("nft", "-j", "list", "tables"))["nftables"]
    tables = [item["table"] for item in listed if "table" in item]
    return {(table["family"], table["name"]): table["handle"] for table in tables}


def _exit_statuses(folder: str) -> dict[str, int]:
    program = f"{folder}/usr/sbin/nft" if folder else "nft"
    return {
        what: subprocess.run([program, *words], capture_output=True, check=False).returncode
        for what, words in _READINGS.items()
    }


@contextlib.contextmanager
def _library(folder: str, which: str) -> Iterator[None]:
    """Have programs that start meanwhile use this libnftables."""
    before = dict(os.environ)
    os.environ.pop("LD_LIBRARY_PATH", None)
    if which == "old":
        os.environ["LD_LIBRARY_PATH"] = f"{folder}/{LIBRARIES}"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _differences() -> list[str]:
    """Return what this process's library reads otherwise than the agent wrote it."""
    table = RedirectTable(_ALL_RULES, uplink="eth0")
    with Nftables() as nft:
        return table.differences(nft.run(table.listing()))


async def release_0_2(*, times: int) -> dict[str, Any]:
    """Release 0.2's rules and ours replace each other, while all pods ask; count who answers."""
    imds, answers = Imds(), Counter[str]()
    async with (
        imds.serving(),
        Agent.running(source_guard=True, guard=False, copy=False) as agent,
    ):
        with Nftables() as nft:
            ours = _elements(nft)
            asking = [asyncio.create_task(_ask_on(pod, answers)) for pod in PODS]
            maps = []
            for _ in range(times):
                _write_0_2(ours)
                maps.append(_maps(nft))
                await asyncio.sleep(0.05)
                await agent.tell("install")
                await agent.tell("sources")
                maps.append(_maps(nft))
                await asyncio.sleep(0.05)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        problems = [*(await agent.tell("sources"))[2], *await agent.tell("problems")]
    return {"answers": answers, "maps": maps, "problems": problems, "leaked": len(imds.seen)}


async def _ask_on(pod: str, answers: Counter[str]) -> None:
    while True:
        answers[(await ask(pod, "/"))["who"]] += 1


def _elements(nft: Nftables) -> dict[str, list[Any]]:
    """Return the elements of the bridge's sets by name; none on routed links."""
    listed = nft.run(transaction([{"list": {"ruleset": {}}}]))["nftables"]
    sets = [item["set"] for item in listed if "set" in item]
    return {each["name"]: each.get("elem", []) for each in sets if each["family"] == "bridge"}


def _maps(nft: Nftables) -> int:
    listed = nft.run(transaction([{"list": {"ruleset": {}}}]))["nftables"]
    return sum("map" in item for item in listed)


def _write_0_2(ours: Mapping[str, list[Any]]) -> None:
    """Replace our tables as an agent of release 0.2 does: each in a transaction of its own."""
    items = json.loads(_RULES_0_2.read_text())
    elements = dict(ours)
    to_bound = {"goto": {"target": "bound"}}
    elements["ports"] = [[port, to_bound] for port in elements.pop("pods")]
    del elements["uplinks"]
    for first in (item for item in items if "table" in item):
        family, name = first["table"]["family"], first["table"]["name"]
        of_table = [
            item
            for item in items
            for body in item.values()
            if (body["family"], body.get("table", name)) == (family, name)
            and ("table" not in item or item == first)
        ]
        filled = [
            {"element": {"family": family, "table": name, "name": of_set, "elem": values}}
            for of_set, values in elements.items()
            if values and family == "bridge"
        ]
        fresh = [{"add": first}, {"delete": first}]
        written = transaction([*fresh, *({"add": item} for item in [*of_table, *filled])])
        subprocess.run(["nft", "-j", "-f", "-"], input=written, text=True, check=True)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_differences()))
