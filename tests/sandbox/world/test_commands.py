"""`podidentity sandbox …` at a shell: what it says, and its exit codes."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from podidentity_sandbox.cli import sandbox
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import folder, lifecycle
from tests.docs.blocks import ROOT, blocks_of
from tests.sandbox.world.places import PARTS, Place, placed

Run = Callable[..., Result]


def runner(place: Place, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(folder, "base_folder", lambda: place.base)
    monkeypatch.setattr("podidentity_sandbox.cli.lifecycle.base_folder", lambda: place.base)
    monkeypatch.setattr(lifecycle, "REAL_PARTS", PARTS)
    monkeypatch.setattr(lifecycle, "find_azure_cli", lambda: "")
    monkeypatch.delenv("PODIDENTITY_SANDBOX", raising=False)

    def invoke(*words: str, **settings: Any) -> Result:
        return CliRunner().invoke(sandbox, list(words), **settings)

    return invoke


@pytest.fixture
def run(place: Place, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line on sandboxes of stand-ins, in a folder of the test's own."""
    return runner(place, monkeypatch)


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    """A place with the sandbox `default`."""
    with placed() as found:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lifecycle, "find_azure_cli", lambda: "")
            found.up("default")
        yield found


@pytest.fixture
def there(shared: Place, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line where a sandbox is up, which stays as it is."""
    return runner(shared, monkeypatch)


def test_up_says_what_it_did_and_what_to_do_next(run: Run) -> None:
    result = run("up", "--rootless")
    assert result.exit_code == 0, result.output
    assert "cluster is ready" in result.stderr
    assert "rootless: no cgroups, so callers are proved by network namespace alone" in result.stdout
    assert "podidentity sandbox shell" in result.stdout


def test_status_tells_parts_and_what_the_mode_means(there: Run) -> None:
    table = there("status").stdout
    assert "rootless" in table
    assert "memory limits of containers are not enforced" in table
    assert [line.split()[:2] for line in table.splitlines()[6:]][:3] == [
        ["PART", "STATE"],
        ["cluster", "ready"],
        ["azure", "ready"],
    ]
    found = json.loads(there("status", "-o", "json").stdout)
    assert {part["name"] for part in found["parts"]} == {"cluster", "azure", *found["nodes"]}
    assert found["memory_limits"] is None


def test_down_says_what_it_found_and_all_means_every_one(run: Run, place: Place) -> None:
    for name in ("one", "two"):
        run("up", "--rootless", "--name", name, "--nodes", "1")
    assert run("down", "--name", "one").stdout == "Sandbox 'one' is down.\n"
    again = run("down", "--name", "one")
    said = "Sandbox 'one' is not running; there was nothing to remove.\n"
    assert (again.exit_code, again.stdout) == (0, said)
    assert run("down", "--all").stdout == "Sandbox 'two' is down.\n"
    assert not place.base.exists()
    assert run("down", "--all").stdout == "No sandbox is running.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("env",),
        ("shell",),
        ("get", "pods"),
        ("exec", "a", "--", "true"),
        ("logs", "a"),
        ("part", "kill", "azure"),
    ],
)
def test_without_a_sandbox_each_command_says_how_to_start_one(run: Run, words: Any) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert "no sandbox named 'default' is running. Start it with `podidentity sandbox up`" in (
        result.stderr
    )


@pytest.mark.parametrize(
    "words",
    [
        ("up", "--nodes", "0"),
        ("up", "--pool", "uniform=0"),
        ("up", "--pool", "cloud=1"),
        ("up", "--pool", "machines=51"),
        ("logs",),
        ("logs", "a", "--part", "azure"),
        ("exec", "a"),
        ("part",),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


def test_a_shell_understands_env_whatever_is_in_it(
    there: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "podidentity_sandbox.cli.shells.environment", lambda *_: {"ODD": "a 'b' \"c\" $d\n`e`"}
    )
    monkeypatch.setattr("podidentity_sandbox.cli.shells.sign_in", lambda *_: None)
    script = there("env").stdout + '\nprintf %s "$ODD"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "a 'b' \"c\" $d\n`e`"


def test_the_walk_through_says_what_to_install_before_anything_is_made(
    run: Run, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podidentity_sandbox.cli.demo.find_azure_cli", lambda: "")
    monkeypatch.setenv("PATH", "/nowhere")
    result = run("demo", "--az")
    assert result.exit_code == 1
    assert "az is not here: run ./scripts/setup-az" in result.stderr
    assert not place.base.joinpath("demo").exists()


def test_a_shell_says_when_a_program_is_not_here(
    there: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = there("shell", "helm")
    said = "helm is not here: PATH leads to no such program"
    assert (result.exit_code, said in result.stderr) == (1, True)


def test_env_leads_every_tool_to_the_sandbox_and_nowhere_else(there: Run, shared: Place) -> None:
    plan = Plan.load(shared.base / "default")
    found = json.loads(there("env", "--shell", "json").stdout)
    assert found["KUBECONFIG"] == str(plan.kubeconfig)
    assert found["HTTPS_PROXY"] == f"http://127.0.0.1:{plan.azure_proxy_port}"
    assert "169.254.169.254" in found["NO_PROXY"].split(",")
    assert found["AZURE_CLIENT_SECRET"] == plan.operator_secret
    bundles = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    assert {found[name] for name in bundles} == {str(plan.ca_bundle)}
    assert found["AZURE_CONFIG_DIR"].startswith(plan.folder)
    assert found["PODIDENTITY_SANDBOX"] == "default"
    unset = json.loads(there("env", "--unset", "--shell", "json").stdout)
    assert sorted([*unset, "PATH"]) == sorted(found)


def test_the_weather_is_told_by_status_and_changed_by_words(run: Run) -> None:
    run("up", "--rootless", "--nodes", "1", "--weather", "real", "--weather-seed", "7")
    assert "\nWeather real, seed 1:7.\n" in run("status").stdout
    shown = json.loads(run("status", "-o", "json").stdout)["weather"]
    assert (shown["name"], shown["seed"], shown["roles"]) == ("real", 7, [5, 60])
    assert run("weather", "set", "roles=[1, 2]").stdout == "weather real, changed, seed 1:7\n"
    table = run("weather").stdout.splitlines()
    assert "roles                1 to 2 s         until a role assignment of Azure counts" in table
    run("weather", "set", "storm", "--weather-seed", "1:8")
    assert json.loads(run("weather", "show", "-o", "json").stdout)["seed"] == 8
    assert "429 (1 to 10 s): 6%" in run("weather").stdout


def test_the_commands_of_the_reference_on_the_weather_do_what_they_say(there: Run) -> None:
    (block,) = [
        each for each in blocks_of(ROOT / "docs/reference/sandbox.md") if each.mark == "run=sandbox"
    ]
    for line in block.text.splitlines():
        program, _, *words = shlex.split(line)
        assert program == "podidentity"
        assert there(*words).exit_code == 0, line
    assert "Weather calm, seed 1:1." in there("status").stdout


def test_a_weather_file_that_is_wrong_is_refused_before_anything_is_made(
    run: Run, place: Place, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("from: real\nroles: soon\n")
    result = run("up", "--rootless", "--weather", str(bad))
    assert (result.exit_code, f"{bad}: roles: give seconds" in result.stderr) == (1, True)
    assert not (place.base / "default").exists()


def test_a_sandbox_of_another_version_can_be_ended_and_nothing_else(run: Run, place: Place) -> None:
    run("up", "--rootless", "--nodes", "1")
    path = place.base / "default" / "plan.json"
    path.write_text(path.read_text().replace('"version": "', '"version": "0.0.'))
    for words in (["status"], ["weather"], ["get", "pods"]):
        result = run(*words)
        assert result.exit_code == 1
        assert "is of another version: it was made by 0.0." in result.stderr
        assert "End it with `podidentity sandbox down`" in result.stderr
    assert run("down").exit_code == 0
    assert not (place.base / "default").exists()


def test_a_part_is_taken_away_and_brought_back(there: Run) -> None:
    for order, state in (("pause", "paused"), ("resume", "ready"), ("kill", "ended")):
        assert there("part", order, "azure").stdout == f"azure is {state}\n"
    assert "azure" in there("logs", "--part", "nobody").stderr
    assert there("part", "start", "azure").stdout == "azure is ready\n"
