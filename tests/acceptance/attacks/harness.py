"""Runs attackers' programs in pods of a sandbox, and looks at what became of the agent.

The programs stand in `programs/`: their text is handed to the pod's own Python.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Plan
from tests.acceptance.sandbox import PATIENCE, Sandbox
from tests.acceptance.two_tenants import URL, TwoTenants

PROGRAMS = Path(__file__).parent / "programs"
DAEMON_SET = "app.kubernetes.io/component=nmi"
CLOSE_WAIT = "08"
"""As /proc/net/tcp shows it: include/net/tcp_states.h."""


@dataclass
class Harness:
    """Two tenants, and an attacker in the namespace of one of them."""

    tenants: TwoTenants

    @property
    def place(self) -> Sandbox:
        return self.tenants.place

    @property
    def plan(self) -> Plan:
        return self.place.plan

    @property
    def azure(self) -> AzureOperator:
        return self.tenants.azure

    async def sh(
        self, pod: str, text: str, namespace: str, *words: str, seconds: int = PATIENCE
    ) -> str:
        """Run a shell script in a pod; return what it printed."""
        command = ["sh", "-c", text, *words]
        ran = await self.place.execute(namespace, pod, command, seconds)
        assert ran.exit == 0, ran.stderr.decode()
        return ran.stdout.decode()

    async def attack(
        self, pod: str, program: str, *words: object, namespace: str = "tenant"
    ) -> Any:
        """Run a program in a pod until it ends; return what it tells."""
        said = await self.sh(pod, _RUN, namespace, _text(program), *map(str, words))
        return json.loads(said)

    async def start(
        self, pod: str, program: str, *words: object, namespace: str = "tenant"
    ) -> dict[str, Any]:
        """Start a program in a pod; return the first line that it tells. It runs on."""
        said = await self.sh(pod, _START, namespace, _text(program), *map(str, words))
        told: dict[str, Any] = json.loads(said)
        return told

    async def token(
        self, pod: str, namespace: str, tries: int = 1, *, fresh: bool = False
    ) -> list[tuple[int, float]]:
        """Ask for a token `tries` times, each on a new connection; return status and seconds.

        `fresh`: one that is in no cache, as often as a pod's budget allows.
        """
        url = URL.format("https://vault.azure.net") + ("&bypass_cache=true" if fresh else "")
        one = "curl -s -m 60 -o /dev/null -w '%{http_code} %{time_total}\\n'"
        one += f" -H Metadata:true '{url}' || true{'; sleep 0.6' if fresh else ''}"
        said = await self.sh(pod, f"for i in $(seq {tries}); do {one}; done", namespace)
        return [(int(line.split()[0]), float(line.split()[1])) for line in said.splitlines()]

    async def address(self, pod: str, namespace: str) -> str:
        return (await self.sh(pod, "hostname -i | cut -d' ' -f1", namespace)).strip()

    async def socket_state(self, pod: str, namespace: str, port: int) -> str:
        """Return the state of the pod's socket at a port; "" if there is none."""
        lines = (await self.sh(pod, "cat /proc/net/tcp", namespace)).splitlines()[1:]
        states = {line.split()[1].rpartition(":")[2]: line.split()[3] for line in lines}
        return states.get(f"{port:04X}", "")

    def on_node(self, *command: str) -> str:
        """Run a command in the node's network; return what it printed."""
        return self.place.on_node(*command)

    async def kill_agent(self) -> None:
        """Kill the agent; return when its successor is ready."""
        os.kill(self.place.nmi(), signal.SIGKILL)
        await self.place.nmi_ready()

    def kubectl(self, command: str, *more: str, given: str = "") -> str:
        """Run kubectl with the words of a command, and more; return what it printed."""
        return self.place.run("kubectl", *command.split(), *more, given=given)

    def restarts(self) -> int:
        """Return how often containers of the agent were started again."""
        pods = json.loads(self.kubectl(f"get pods -n kube-system -l {DAEMON_SET} -o json"))["items"]
        return sum(
            each["restartCount"] for pod in pods for each in pod["status"]["containerStatuses"]
        )

    def log(self) -> str:
        """Return all that the present agent has written."""
        return self.kubectl(f"logs -n kube-system -l {DAEMON_SET} --all-containers --tail=-1")

    def memory(self) -> int:
        """Return the bytes of all processes of the agent: what is shared counts in parts."""
        pods = json.loads(self.kubectl(f"get pods -n kube-system -l {DAEMON_SET} -o json"))["items"]
        folders = [f"pod{pod['metadata']['uid']}" for pod in pods]
        held = 0
        for procs in Path(self.plan.cgroup_root).rglob("cgroup.procs"):
            if procs.parent.parent.name in folders:
                held += sum(map(_proportional, procs.read_text().split()))
        return held

    async def apply(self, *objects: str) -> None:
        await asyncio.to_thread(self.tenants.apply, *objects)


_RUN = 'exec python3 -c "$0" "$@"'
# The shell ends when the program has told something; the program does not.
_START = """
told=$(mktemp)
python3 -c "$0" "$@" >$told 2>$told.errors </dev/null &
while ! test -s $told; do kill -0 $! || { cat $told.errors >&2; exit 1; }; sleep 0.05; done
cat $told
"""


def _text(program: str) -> str:
    return (PROGRAMS / f"{program}.py").read_text()


def _proportional(pid: str) -> int:
    """Return a process's proportional set size in bytes; 0 once it has ended."""
    try:
        lines = Path("/proc", pid, "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
