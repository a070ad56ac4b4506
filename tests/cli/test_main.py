from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Coroutine
from pathlib import Path

import click
import pytest

from podidentity import __version__
from podidentity.cli import main
from podidentity.cli.output import CommandError
from podidentity.core.errors import NotReady

ROOT = Path(__file__).parents[2]
SECRET = "kept-to-itself"


def test_its_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"podidentity {__version__}\n"


def test_commands_load_no_part_of_nmi_before_they_run_it() -> None:
    ours = (row for name, row in main._COMMANDS.items() if name not in main._ELSEWHERE)
    modules = {target.partition(":")[0] for target, _ in ours}
    script = f"import sys, {', '.join(sorted(modules))}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(ran.stdout.split())
    parts = ("nmi.main", "nmi.request", "nmi.server", "nmi.sync", "net", "supervisor")
    assert modules <= loaded
    assert not {f"podidentity.{part}" for part in parts} & loaded


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandError("It broke", "Mend it."), 1, "error: It broke. Mend it.\n"),
        (CommandError("It broke."), 1, "error: It broke.\n"),
        (NotReady("not ready"), 1, "error: not ready.\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied.\n"),
        (ConnectionResetError(104, "Connection reset by peer"), 1, "error: Connection reset by"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
    ],
    ids=repr,
)
def test_a_failure_is_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(main, "_imported", lambda _: click.Command("enable", callback=fail))
    assert main.run(["enable"]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.strip("\n").splitlines()) == 1
    assert captured.out == ""


def fail_with_a_secret() -> None:
    cause = ValueError(f"Illegal header value b'Bearer {SECRET}'")
    raise ExceptionGroup(SECRET, [KeyError(SECRET), RuntimeError(SECRET)]) from cause


def test_an_unexpected_error_is_one_sentence_that_names_a_file_with_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = click.Command("enable", callback=fail_with_a_secret)
    monkeypatch.setattr(main, "_imported", lambda _: command)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main.run(["enable"]) == 1
    (file,) = tmp_path.iterdir()
    said = capsys.readouterr().err
    assert said.startswith("error: podidentity met an error that it does not expect: ExceptionGr")
    assert f"The traceback is in {file}. podidentity --debug COMMAND prints" in said
    assert said.count("\n") == 1
    written = file.read_text()
    assert "in fail_with_a_secret" in written
    assert all(name in written for name in ("ExceptionGroup", "KeyError", "ValueError"))
    assert SECRET not in said + written
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_debug_flag_prints_the_traceback_of_an_unexpected_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = click.Command("enable", callback=fail_with_a_secret)
    monkeypatch.setattr(main, "_imported", lambda _: command)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main.run(["--debug", "enable"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_of_an_agent_goes_to_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    command = click.Command("nmi", callback=fail_with_a_secret)
    monkeypatch.setattr(main, "_imported", lambda _: command)
    with pytest.raises(ExceptionGroup):
        main.read(["nmi"])


def test_an_unexpected_error_is_a_sentence_also_where_no_file_can_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = click.Command("enable", callback=fail_with_a_secret)
    monkeypatch.setattr(main, "_imported", lambda _: command)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert main.run(["enable"]) == 1
    assert "in no file, because none can be written" in capsys.readouterr().err


def test_help_lists_the_commands_for_people_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":") and line[0] != " "] == [
        *("Options:", "Install:", "Identities:", "Look:", "Migrate:", "Try:")
    ]
    shown = {line.split()[0] for line in lines if line.startswith("  ") and line.split()}
    assert not {"nmi", "net", "serve", "nodes"} & shown
    assert set(main._COMMANDS) - shown == {"nmi", "net", "serve", "nodes"}


@pytest.mark.parametrize("words", [[], ["add"], ["mic", "pause"]], ids=str)
def test_help_is_a_word_as_well(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["help", *words]) == 0
    said = capsys.readouterr().out
    assert main.run([*words, "--help"]) == 0
    assert capsys.readouterr().out == said


def test_the_cluster_may_be_named_before_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/of/the/environment")
    for words, said in (
        (["list"], "/of/the/environment not found"),
        (["--kubeconfig", "/before", "list"], "/before not found"),
        (["--kubeconfig", "/before", "list", "--kubeconfig", "/behind"], "/behind not found"),
    ):
        assert main.run(words) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["unknown"], ["enable", "--unknown"], ["completion"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 2
    assert "Usage: podidentity" in capsys.readouterr().err


def test_a_wrong_command_is_answered_with_those_that_look_like_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["chekc"]) == 2
    assert "No such command 'chekc'. Did you mean 'check'?" in capsys.readouterr().err
    assert main.run(["sandbox", "exce"]) == 2
    assert "Did you mean 'exec'?" in capsys.readouterr().err


def test_without_the_sandbox_it_is_not_listed_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "find_spec", lambda _: None)
    assert main.run(["--help"]) == 0
    assert "sandbox" not in capsys.readouterr().out
    assert main.run(["sandbox", "--any", "thing"]) == 1
    err = capsys.readouterr().err
    assert "it is not installed" in err
    assert "pip install podidentity-sandbox" in err


def test_a_sandbox_that_cannot_be_loaded_says_why_and_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(main._COMMANDS, "sandbox", ("no_such_module:command", "A sandbox."))
    assert main.run(["--help"]) == 0
    assert "A sandbox." in capsys.readouterr().out
    assert main.run(["sandbox", "--any", "thing"]) == 1
    assert "No module named 'no_such_module'" in capsys.readouterr().err


def test_kubectl_calls_it_by_its_own_name() -> None:
    script = "import sys; sys.argv[0] = '/usr/local/bin/kubectl-podidentity'; "
    script += "from podidentity.cli.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", script, "--help"], check=True, capture_output=True, text=True
    )
    assert "Usage: kubectl podidentity" in ran.stdout


@pytest.fixture
def kubectl(tmp_path: Path) -> Callable[..., str]:
    """Run the real kubectl, which finds our two programs as an installation has them."""
    for name, function in (
        ("kubectl-podidentity", "podidentity.__main__:main"),
        ("kubectl_complete-podidentity", "podidentity.cli.main:complete_for_kubectl"),
    ):
        module, _, attribute = function.partition(":")
        program = tmp_path / name
        program.write_text(f"#!{sys.executable}\nfrom {module} import {attribute}\n{attribute}()\n")
        program.chmod(0o755)
    known = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBECONFIG": "/nowhere"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["kubectl", *arguments], check=True, capture_output=True, text=True, env=known
        )
        return done.stdout

    return run


def test_kubectl_itself_runs_and_completes_it(kubectl: Callable[..., str]) -> None:
    assert kubectl("podidentity", "--version") == f"podidentity {__version__}\n"
    assert "Usage: kubectl podidentity explain" in kubectl("podidentity", "explain", "--help")
    offered = kubectl("__complete", "podidentity", "e").splitlines()
    assert [each.partition("\t")[0] for each in offered] == ["enable", "exception", "explain", ":4"]
    (flag, _) = kubectl("__complete", "podidentity", "list", "--gr").splitlines()
    assert flag.startswith("--grants\tWho may use which identity")


def test_its_programs_for_kubectl_are_those_that_are_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl-podidentity"] == "podidentity.__main__:main"
    assert scripts["kubectl_complete-podidentity"] == "podidentity.cli.main:complete_for_kubectl"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == 0
    assert f"_PODIDENTITY_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_completion_offers_the_commands() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "podidentity"],
        check=False,
        capture_output=True,
        text=True,
        env={
            "_PODIDENTITY_COMPLETE": "bash_complete",
            "COMP_WORDS": "podidentity e",
            "COMP_CWORD": "1",
        },
    )
    assert ran.stdout.split() == ["plain,enable", "plain,exception", "plain,explain"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["delete", "-n", "shop", "--name", "orders"], "Nothing was changed.\n"),
        (["mic", "pause"], "Nothing was changed.\n"),
        (["list"], ""),
    ],
)
def test_a_command_that_is_interrupted_before_it_changes_anything_says_so_if_it_would_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """At each of its steps: tests/cli/test_interrupted.py."""

    def interrupted(work: Coroutine[object, object, None]) -> None:
        work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.run", interrupted)
    assert main.run(words) == 130
    assert capsys.readouterr().err == f"{said}\ninterrupted\n"
