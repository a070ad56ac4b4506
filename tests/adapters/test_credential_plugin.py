from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from podidentity import credential_plugin
from podidentity.credential_plugin import NoCredentials, Plugin, token_of

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
