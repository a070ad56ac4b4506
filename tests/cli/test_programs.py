from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podidentity.cli import main
from podidentity.cli.plans import plan_of_both
from podidentity.cli.programs import AgentPlan
from podidentity.core.attestation import AttestationMode
from podidentity.core.authorities import CLOUDS
from podidentity.net.plan import NetPlan
from podidentity.settings import SERVE_UID, Compat, NmiSettings
from podidentity.supervisor.main import Plan
from tests.root import needs_root

FLAGS = [
    "--node=n1",
    "--runtime-dir=/run/here",
    "--handover-dir=/run/there",
    "--attestation=namespace",
    "--cloud=AzureChinaCloud",
    "--on-exit=remove",
    "--compat-text-errors",
]
SETTINGS = NmiSettings(
    node="n1",
    runtime_dir="/run/here",
    handover_dir="/run/there",
    attestation=AttestationMode.NAMESPACE,
    cloud=CLOUDS["azurechinacloud"],
    on_exit="remove",
    compat=Compat(text_errors=True),
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "podidentity", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def unpickled(found: bytes) -> Any:
    return pickle.loads(found)  # noqa: S301 - made here


@needs_root
def test_where_pythons_own_files_are_hidden_serve_stays_root_and_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "os.py").touch()
    monkeypatch.setattr(os, "__file__", str(home / "os.py"))
    plan = plan_of_both(replace(SETTINGS, kubeconfig=None))
    assert plan.serve_user is None
    assert "cannot read its token, its kubeconfig, podidentity or Python" in plan.unprivileged
    assert "not below a home folder" in plan.unprivileged


def modules(script: str) -> set[str]:
    """Return what is loaded when the script calls `show`."""
    before = "import sys\nfrom podidentity.cli import programs\n"
    before += "def show(*_): print(*(name for name, found in sys.modules.items() if found))\n"
    ran = subprocess.run(
        [sys.executable, "-c", before + script], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


@pytest.mark.parametrize("program", ["net", "serve", "nmi"])
def test_every_process_of_the_agent_gets_what_the_flags_say(program: str) -> None:
    plan = main.read([program, *FLAGS])
    assert isinstance(plan, AgentPlan)
    assert unpickled(pickle.dumps(plan)) == plan
    assert unpickled(plan.worker) == SETTINGS
    net = unpickled(plan.net)
    assert isinstance(net, NetPlan)
    assert (net.node, net.removes, net.serve_user) == ("n1", True, SERVE_UID)
    assert net.attestation is AttestationMode.NAMESPACE
    assert net.socket == Path("/run/here/net.sock")
    assert net.lock_folder == Path("/run/there/net")
    serve = unpickled(plan.serve)
    assert isinstance(serve, Plan)
    assert net.handover_folder == serve.handover_dir == Path("/run/there/serve")
    assert serve.removes


@pytest.mark.parametrize(
    ("flags", "listens"), [((), {"127.0.0.1", "169.254.25.79"}), (("off",), {"169.254.25.79"})]
)
def test_where_nobody_may_ask_for_pods_loopback_is_left_to_others(
    flags: Sequence[str], listens: set[str]
) -> None:
    plan = main.read(["serve", "--node=n1", *(f"--host-token={each}" for each in flags)])
    assert isinstance(plan, AgentPlan)
    found = {each.host for each in unpickled(plan.serve).addresses if each.port == 2579}
    assert found == listens


_NOBODY_READS = """
import os
from podidentity.cli import programs
reading, writing = os.pipe()
os.close(reading)
programs._tell(["net", "--node=n1"], writing)
"""


def test_a_reader_of_flags_whose_parent_was_killed_ends_without_a_word() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _NOBODY_READS], check=False, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == ("", "")


def test_without_a_folder_for_updates_there_is_none() -> None:
    plan = main.read(["net", "--node=n1"])
    assert isinstance(plan, AgentPlan)
    net = unpickled(plan.net)
    assert net.lock_folder is net.handover_folder is unpickled(plan.serve).handover_dir is None
    assert net.socket == Path("/run/podidentity/net.sock")


@pytest.mark.parametrize("program", ["net", "serve", "nmi"])
def test_help_and_wrong_usage_end_a_program_as_any_command(program: str) -> None:
    helped = run(program, "--help")
    assert helped.returncode == 0
    assert f"Usage: podidentity {program}" in helped.stdout
    wrong = run(program, "--unknown")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "No such option '--unknown'" in wrong.stderr
    impossible = run(program, "--node=n1", "--nmi-port=70000")
    assert (impossible.returncode, impossible.stdout) == (1, "")
    assert impossible.stderr == "error: 70000 is no port: it must be from 1 to 65535.\n"


def test_a_plan_that_is_not_told_is_no_success() -> None:
    script = (
        "import sys\n"
        "from podidentity.cli import main, programs\n"
        "main.read = lambda _: lambda: None\n"
        "sys.exit(programs.main(['net']))"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert ran.returncode == os.EX_SOFTWARE
    assert b"pickle" in ran.stderr


def test_the_supervisor_loads_neither_command_line_nor_library_nor_event_loop() -> None:
    loaded = modules(
        "from podidentity.supervisor import main\n"
        "class Shown:\n"
        "    def __init__(self, plan, main): self.plan = plan\n"
        "    def run(self): show(); return 0 if self.plan.addresses else 1\n"
        "main.Supervisor = Shown\n"
        "sys.exit(programs.main(['serve', '--node=n1']))"
    )
    assert "podidentity.supervisor.main" in loaded
    heavy = {"click", "msgspec", "yaml", "asyncio", "ssl", "hashlib", "podidentity.settings"}
    assert not loaded & heavy
    assert not [name for name in loaded if name.startswith(("podidentity.core", "podidentity.nmi"))]


def test_net_loads_no_http_no_tls_and_no_command_line() -> None:
    loaded = modules(
        "plan = programs._read(['net', '--node=n1'])\n"
        "def stop(_): show(); sys.exit(0)\n"
        "programs.pickle = type('Stopped', (), {'loads': stop})\n"
        "programs._net(plan)"
    )
    assert {"podidentity.net.main", "asyncio"} <= loaded
    heavy = {"click", "httpx2", "httptools", "yaml", "ssl", "_ssl", "_hashlib", "hashlib"}
    assert not loaded & {*heavy, "podidentity.settings", "podidentity.core.decision"}
    assert "podidentity.supervisor.main" not in loaded
