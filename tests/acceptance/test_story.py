"""The whole story, told by real programs in a sandbox of its own: as root, and without it."""

from __future__ import annotations

import json
import signal
import subprocess
from functools import cache
from typing import Any

import pytest

from podidentity_sandbox.world.folder import base_folder
from podidentity_sandbox.world.lifecycle import names
from tests.acceptance.sandbox import CHOSEN, TIMEOUT
from tests.sandboxes import own

WAYS = {"root": [], "rootless": ["--rootless"]}
NAMES = {way: own(f"told-{way}") for way in WAYS}
# What the walk-through asks of this slice, by the numbers of its steps.
COVERED = {
    "2",
    "3",
    "5",
    "8",
    "9",
    "10",
    "11",
    "12",
    "13",
    "14",
    "17",
    "18",
    "19",
    "20",
    "21",
    "22",
}


@cache
def told(way: str) -> list[dict[str, Any]]:
    command = ["podidentity", "sandbox", "demo", "--json", "--name", NAMES[way]]
    command += [*CHOSEN, *WAYS[way]]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=TIMEOUT - 20
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("way", WAYS)
def test_every_step_of_the_story_shows_what_it_must(way: str) -> None:
    wrong = [(step["number"], step["name"], step["detail"]) for step in told(way) if not step["ok"]]
    assert wrong == []


@pytest.mark.parametrize("way", WAYS)
def test_the_story_has_every_step_of_the_walk_through_and_the_forged_addresses(way: str) -> None:
    numbers = {step["number"] for step in told(way)}
    assert numbers >= COVERED | {"forged"}


@pytest.mark.parametrize("way", WAYS)
def test_the_story_prints_no_token(way: str) -> None:
    assert "eyJhb" not in json.dumps(told(way))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_the_sandbox_is_left(way: str) -> None:
    assert told(way)
    done = subprocess.run(
        ["podidentity", "sandbox", "status", "--name", NAMES[way]],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "running" in done.stderr


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_no_sandbox(ended_by: signal.Signals) -> None:
    name = own("cut-short")
    command = ["podidentity", "sandbox", "demo", "--name", name, *CHOSEN]
    # Else the demo ignores it, as these tests do where a shell runs them in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        while "Before" not in demo.stdout.readline():
            assert demo.poll() is None
        demo.send_signal(ended_by)
        demo.communicate(timeout=TIMEOUT - 20)
    assert demo.returncode == 130
    assert name not in names(base_folder())
