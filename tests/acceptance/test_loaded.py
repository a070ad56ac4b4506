"""The commands of these tests, in processes that are forked: they are as their program is."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.acceptance import loaded

KUBECONFIG = """
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: c, context: {{cluster: c}}}}]
current-context: c
"""


@pytest.mark.parametrize(
    "words", [["--version"], ["list"], ["explode"], ["rights", "--azure", "nothing", "ä \udcff"]]
)
def test_a_command_says_what_its_program_says_and_ends_with_its_code(
    words: list[str], tmp_path: Path
) -> None:
    surroundings = {"PATH": os.environ["PATH"], "KUBECONFIG": "a place/nobody's"}
    said = [
        subprocess.run(
            [*begins, *words], cwd=tmp_path, env=surroundings, capture_output=True, check=False
        )
        for begins in (("podidentity",), loaded.command())
    ]
    program, forked = [(ran.stdout, ran.stderr, ran.returncode) for ran in said]
    assert forked == program


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_a_command_says_the_same_where_files_are_closed(closed: str) -> None:
    said = [
        subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *begins, "explode"],
            capture_output=True,
            check=False,
        )
        for begins in (("podidentity",), loaded.command())
    ]
    program, forked = [(ran.stdout, ran.stderr, ran.returncode) for ran in said]
    assert forked == program
    assert forked[2] == 2


def test_a_command_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG.format(port=server.getsockname()[1]))
        words = ("list", "--kubeconfig", str(kubeconfig))
        with subprocess.Popen([*loaded.command(), *words]) as asked:
            connection, _ = server.accept()
            asked.kill()
        with connection:
            connection.settimeout(60)
            while connection.recv(65536):
                pass
