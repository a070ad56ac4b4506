from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from podidentity import credential_plugin
from podidentity.credential_plugin import NoCredentials, Plugin, PluginAuth, token_of

VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture
def pid(tmp_path: Path) -> Path:
    """A pipe that the program writes its number into."""
    os.mkfifo(tmp_path / "pid")
    return tmp_path / "pid"


def sleeping(pid: Path) -> Plugin:
    """Return a program that never ends."""
    return Plugin(
        version=VERSION,
        command="sh",
        arguments=("-c", 'echo $$ > "$0"; exec sleep 600', str(pid)),
    )


async def test_a_plug_in_ends_with_whoever_waited_for_it(pid: Path) -> None:
    """So Ctrl-C leaves none behind, wherever the signal was sent to."""
    asked = asyncio.create_task(token_of(sleeping(pid)))
    number = int(await asyncio.to_thread(pid.read_text))
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


async def test_a_plug_in_that_hangs_is_ended(pid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_plugin, "SECONDS", 0.5)
    with pytest.raises(NoCredentials, match=r"plug-in sh of the kubeconfig did not end within 0.5"):
        await token_of(sleeping(pid))


def printing(text: str, **more: str) -> Plugin:
    """Return a program that prints this with the variables put in, and counts its runs."""
    return Plugin(
        version=VERSION,
        command="sh",
        arguments=("-c", f'echo run >> "$RUNS"; printf %s "{text}"'),
        variables=tuple(more.items()),
    )


def credential(token: str) -> str:
    return json.dumps({"status": {"token": token}}).replace('"', '\\"')


async def test_a_plug_in_has_the_variables_of_this_shell_and_those_of_the_kubeconfig_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "shell")
    monkeypatch.setenv("THERE", "shell")
    plugin = printing(credential("$HERE.$THERE"), THERE="kubeconfig", RUNS=str(tmp_path / "runs"))
    assert await token_of(plugin) == "shell.kubeconfig"


@pytest.mark.parametrize("token", ["", "  ", "a\\\\nb"])
async def test_a_token_that_no_header_could_hold_is_none(tmp_path: Path, token: str) -> None:
    plugin = printing(credential("TOKEN").replace("TOKEN", token), RUNS=str(tmp_path / "runs"))
    with pytest.raises(NoCredentials, match="printed no token"):
        await token_of(plugin)


@pytest.mark.parametrize(
    ("command", "why"),
    [("/no/such/program", "No such file or directory"), ("a\0b", "has a zero byte")],
)
async def test_a_plug_in_that_cannot_be_run_is_named_with_the_reason(
    command: str, why: str
) -> None:
    with pytest.raises(NoCredentials, match=f"cannot be run: .*{why}$"):
        await token_of(Plugin(version=VERSION, command=command))


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
async def test_each_version_of_the_question_is_known(tmp_path: Path, version: str) -> None:
    plugin = printing(credential("a"), RUNS=str(tmp_path / "runs"))
    asked = replace(plugin, version=f"client.authentication.k8s.io/{version}")
    assert await token_of(asked) == "a"


async def test_a_token_is_asked_for_once_and_again_where_the_server_takes_it_no_more(
    tmp_path: Path,
) -> None:
    runs, seen = tmp_path / "runs", list[str]()
    text = credential("$(wc -l < $RUNS | tr -d ' ')")
    auth = PluginAuth(printing(text, RUNS=str(runs)))

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["Authorization"])
        return httpx2.Response(401 if len(seen) == 3 else 200)

    transport = httpx2.MockTransport(answer)
    async with httpx2.AsyncClient(transport=transport, auth=auth) as client:
        for _ in range(3):
            assert (await client.get("https://server")).status_code == 200
    assert seen == ["Bearer 1", "Bearer 1", "Bearer 1", "Bearer 2"]
    assert runs.read_text() == "run\nrun\n"
