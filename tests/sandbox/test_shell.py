from __future__ import annotations

import os

import pytest

from podidentity_sandbox.demo.shell import Shell, ShellEnded


async def open_shell() -> Shell:
    return await Shell.open(["bash", "--noprofile", "--norc"], os.environ)


async def test_a_shell_keeps_what_a_command_exports_and_tells_how_each_ended() -> None:
    shell = await open_shell()
    assert (await shell.run("export A=1; echo one; echo two >&2; false")).exit == 1
    ran = await shell.run("echo $A\n\nprintf 'no newline'")
    assert (ran.output, ran.exit) == ("1\nno newline", 0)
    await shell.close()


async def test_a_command_that_took_too_long_does_not_speak_for_the_next() -> None:
    shell = await open_shell()
    with pytest.raises(TimeoutError):
        await shell.run("read -t 0.3 </dev/zero; sleep 0.3; echo late", seconds=0.05)
    assert (await shell.run("echo mine")).output == "mine"
    await shell.close()


async def test_a_shell_that_ends_says_what_it_said_last() -> None:
    shell = await open_shell()
    with pytest.raises(ShellEnded, match="farewell"):
        await shell.run("echo farewell; exit 3")
    await shell.close()


async def test_a_shell_at_a_terminal_has_one_and_shows_neither_echo_nor_prompt() -> None:
    shell = await Shell.open_at_terminal(["sh"], {**os.environ, "PS1": "$ ", "TERM": "xterm"})
    assert (await shell.run("[ -t 0 ] && [ -t 1 ] && tty | grep -c /dev/pts")).output == "1"
    assert (await shell.run("export A=1; stty size")).output == "40 160"
    ran = await shell.run("echo $A\nprintf 'no newline'; false")
    assert (ran.output, ran.exit) == ("1\nno newline", 1)
    await shell.close()


async def test_a_program_at_a_terminal_that_ends_says_what_it_said_last() -> None:
    with pytest.raises(ShellEnded, match="not found"):
        await Shell.open_at_terminal(["sh", "-c", "echo pod not found; exit 1"], os.environ)
