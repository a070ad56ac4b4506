"""A warm token through the interception with 110 pods on the node, and NMI's memory then."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from bench.bars import Bar, show, wants_json
from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.node.client import execute
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.lifecycle import bring_down, bring_up

PODS = 110
PSS = """
import pathlib, re
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    argv = (entry / "cmdline").read_bytes().split(b"\\0")
    if b"nmi" in argv and b"--operation-mode=managed" in argv:
        rollup = (entry / "smaps_rollup").read_text()
        print(re.search(r"Pss: +(\\d+)", rollup)[1])
"""
IMPORTS = """
import pathlib, re
{}
print(re.search(r"Pss: +(\\d+)", pathlib.Path("/proc/self/smaps_rollup").read_text())[1])
"""


def say(line: str) -> None:
    """Tell the person who waits what goes on."""
    print(line, file=sys.stderr)


def run(plan: Plan, *argv: str, given: str = "") -> str:
    """Run a command of ours as the operator of the sandbox; return what it printed."""
    shell = 'eval "$(podidentity sandbox env)"; exec "$@"'
    environment = {**os.environ, "PODIDENTITY_SANDBOX": plan.name}
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *argv],
        check=False,
        input=given,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        sys.exit(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    return done.stdout


def pods(count: int) -> str:
    """Return the manifests of so many idle pods with the label."""
    return "---\n".join(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"pod-{number}",
                    "namespace": "default",
                    "labels": {"aadpodidbinding": "bench"},
                },
                "spec": {"containers": [{"name": "main", "image": "idle"}]},
            }
        )
        + "\n"
        for number in range(count)
    )


async def pss_of_nmi(plan: Plan) -> float:
    """Return NMI's proportional set size in MB, read in its own pod."""
    listed = json.loads(
        run(plan, "podidentity", "sandbox", "get", "pods", "-n", "kube-system", "-o", "json")
    )
    [name] = [each["metadata"]["name"] for each in listed["items"]]
    ran = await execute(plan, "kube-system", name, ["python3", "-c", PSS])
    return int(ran.stdout) / 1024


def pss_of_imports(statement: str) -> float:
    """Return the proportional set size in MB of a program that only imports."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(statement)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout) / 1024


async def measure(plan: Plan) -> list[Bar]:
    """Enable, bind, fill the node, ask."""
    made = await prepare(plan)
    run(plan, "podidentity", "enable")
    run(
        plan,
        "podidentity",
        "add",
        "--namespace",
        "default",
        "--name",
        "bench",
        "--identity-resource-id",
        made.identity_id,
    )
    say(f"starting {PODS} pods")
    run(plan, "podidentity", "sandbox", "apply", "--wait", "-f", "-", given=pods(PODS))
    say("asking")
    # By standard input: a pod need not see this folder, as where it lies under /tmp.
    load = Path(__file__).with_name("nmi_load.py").read_bytes()
    command = ["python3", "-", "5000", "2000"]
    ran = await execute(plan, "default", "pod-0", command, stdin=load, timeout=120)
    if ran.exit:
        sys.exit(f"the load ended with {ran.exit}: {ran.stdout.decode()}{ran.stderr.decode()}")
    taken = json.loads(ran.stdout)
    kept, new = taken["kept"], taken["new"]
    base, agent = pss_of_imports("import asyncio"), pss_of_imports("import podidentity.nmi.main")
    say(f"imports: asyncio alone {base:.1f} MB, NMI's {agent:.1f} MB")
    return [
        Bar("warm token, one kept connection, p50, ms", kept["p50"] / 1000, 1),
        Bar("warm token, one kept connection, p99, ms", kept["p99"] / 1000, 3),
        Bar("warm token, a new attested connection each, p50, ms", new["p50"] / 1000, 2),
        Bar(f"memory of NMI with {PODS} pods on its node, PSS, MB", await pss_of_nmi(plan), 80),
    ]


def main() -> int:
    """Bring a sandbox of one node up, measure in it, take it down."""
    as_json = wants_json()
    plan = bring_up("bench", nodes=1, rootless=False, progress=say)
    try:
        bars = asyncio.run(measure(plan))
    finally:
        bring_down("bench")
    return show(bars, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
