"""The operator's shell: led to the sandbox, signed in once, and away from what the person keeps."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from podidentity_sandbox.cli.shells import start_file
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.blueprint import Shape, draw_plan
from podidentity_sandbox.world.environment import environment, sign_in

FAKE_AZ = r"""#!/bin/sh
echo "$@" >>"$AZURE_CONFIG_DIR/asked"
cat >"$AZURE_CONFIG_DIR/read"
echo '{}' >"$AZURE_CONFIG_DIR/azureProfile.json"
[ -z "$REFUSED" ] || { echo "ERROR: AADSTS7000215: Invalid client secret" >&2; exit 1; }
printf '\357\273\277{"subscriptions": [{"id": "one"}]}' >"$AZURE_CONFIG_DIR/azureProfile.json"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    tools = tmp_path / "cli" / "tools"
    tools.mkdir(parents=True)
    (tools / "az").write_text(FAKE_AZ)
    (tools / "az").chmod(0o755)
    (tmp_path / "one").mkdir()
    shape = Shape(nodes=1, rootless=True)
    return draw_plan("one", tmp_path / "one", shape, azure_cli=str(tmp_path / "cli"))


def test_az_is_the_one_with_the_extension_and_other_programs_stay_the_persons_own(
    plan: Plan,
) -> None:
    found = environment(plan, "/person/bin:/usr/bin")
    ours = str(Path(sys.executable).parent)
    assert found["PATH"] == f"{plan.azure_cli}/tools:/person/bin:/usr/bin:{ours}"
    assert found["AZURE_EXTENSION_DIR"] == f"{plan.azure_cli}/extensions"


def test_az_is_signed_in_once_and_no_command_line_holds_the_secret(plan: Plan) -> None:
    variables = environment(plan, "/usr/bin:/bin")
    sign_in(plan, variables)
    sign_in(plan, variables)
    (asked,) = (plan.az_folder / "asked").read_text().splitlines()
    assert asked.startswith(f"login --service-principal --username {plan.operator_id}")
    assert plan.operator_secret not in asked
    assert (plan.az_folder / "read").read_text() == plan.operator_secret
    assert "use_dynamic_install = no" in (plan.az_folder / "config").read_text()
    assert plan.az_folder.stat().st_mode & 0o077 == 0


def test_a_sign_in_that_fails_is_told_in_azs_words_and_tried_again(plan: Plan) -> None:
    variables = environment(plan, "/usr/bin:/bin")
    with pytest.raises(SandboxError, match="AADSTS7000215"):
        sign_in(plan, {**variables, "REFUSED": "1"})
    sign_in(plan, variables)
    assert len((plan.az_folder / "asked").read_text().splitlines()) == 2


def test_a_shell_at_a_terminal_shows_where_it_is_whatever_the_person_has_set(
    tmp_path: Path,
) -> None:
    """Bash reads the start file as `sandbox shell` writes it, after the person's own."""
    (tmp_path / ".bashrc").write_text("export KUBECONFIG=/mine PS1='mine> '\n")
    (tmp_path / "start").write_text(start_file("one", {"KUBECONFIG": "/the sandbox's"}))
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--rcfile", str(tmp_path / "start")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, b"echo [$KUBECONFIG]; exit 7\n")
    said = bytearray()
    with suppress(OSError):  # EIO: Linux says so at the end of a terminal
        while chunk := os.read(ours, 4096):
            said += chunk
    os.close(ours)
    assert shell.wait() == 7
    assert b"(sandbox one) mine> " in said
    assert b"[/the sandbox's]" in said
