"""Real kubectl at a real terminal: exec -it, with its size, signals and exit codes.

https://kubernetes.io/docs/tasks/debug/debug-application/get-shell-running-container/
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.kubectls import VERSIONS, find
from tests.sandbox.node.terminals import Terminal
from tests.sandboxes import own

pytestmark = pytest.mark.net
NAME = own("kubectl-tty")


class Person:
    """Somebody with a kubectl of some version."""

    def __init__(self, version: str, kubeconfig: Path) -> None:
        self._kubectl = find(version)
        home = str(kubeconfig.parent)
        self._environment = {"KUBECONFIG": str(kubeconfig), "PATH": "/usr/bin:/bin", "HOME": home}

    def at_terminal(self, *words: str) -> Terminal:
        return Terminal(self._kubectl, *words, environment=self._environment)

    def does(self, *words: str) -> str:
        done = subprocess.run(
            [self._kubectl, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=180,
        )
        return done.stdout


@pytest.fixture(scope="module")
def kubeconfig() -> Iterator[Path]:
    try:
        yield bring_up(NAME, Shape(nodes=1), bound=True).kubeconfig
    finally:
        bring_down(NAME)


@pytest.fixture(params=VERSIONS)
def person(request: pytest.FixtureRequest, kubeconfig: Path) -> Iterator[Person]:
    """A person, and a pod `shell` that idles."""
    someone = Person(request.param, kubeconfig)
    someone.does("run", "shell", "--image=busybox", "--grace-period=0")
    someone.does("wait", "--for=condition=Ready", "pod/shell", "--timeout=120s")
    yield someone
    someone.does("delete", "pod", "--all", "--now")


def test_a_shell_has_the_size_of_the_terminal_and_follows_it(person: Person) -> None:
    terminal = person.at_terminal("exec", "-it", "shell", "--", "sh")
    shown = b""
    while b"33 77" not in shown:  # as soon as kubectl has told the size
        terminal.type(b"stty size; echo first-$?\n")
        shown = terminal.until(b"first-0")
    terminal.resize(rows=20, columns=50)
    while b"20 50" not in shown:
        terminal.type(b"stty size; echo again-$?\n")
        shown = terminal.until(b"again-0")
    terminal.type(b"exit 5\n")
    terminal.until(b"command terminated with exit code 5")
    assert terminal.close() == 5


def test_an_interrupt_reaches_the_program_and_not_kubectl(person: Person) -> None:
    # No shell: before it runs its next program, dash may lose an interrupt.
    terminal = person.at_terminal("exec", "-it", "shell", "--", "cat")
    terminal.type(b"up\n")
    terminal.until(b"up\r\nup\r\n")
    terminal.type(b"\x03")
    terminal.until(b"command terminated with exit code 130")
    assert terminal.close() == 130
