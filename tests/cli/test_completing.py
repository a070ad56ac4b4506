"""What a shell is offered of the cluster, within which time, and what it is not told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from podidentity.cli import completing, main
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.world import World


def offered(*line: str) -> list[tuple[str, str]]:
    """Return what the last word of a line may go on with, and the help of each."""
    *before, begun = line
    found = ShellComplete(main.podidentity, {}, "podidentity", "").get_completions(before, begun)
    return [(each.value, each.help or "") for each in found]


def words(*line: str) -> list[str]:
    return [value for value, _ in offered(*line)]


def test_names_of_the_cluster_are_offered_where_a_command_takes_them(
    world: World, ns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completing, "SECONDS", 30.0)
    spec = {"clientID": CLIENT, "resourceID": IDENTITY}
    world.custom(ns, "azureidentities", "orders", spec)
    bound = {"azureIdentity": "orders", "selector": "checkout"}
    world.custom(ns, "azureidentitybindings", "orders-binding", bound)
    world.custom(ns, "azurepodidentityexceptions", "agents", {"podLabels": {"a": "b"}})
    world.pod(ns, "orders-0")
    assert words("explain", "pod", ns[:6]) == [f"{ns}/orders-0"]
    assert words("explain", "pod", f"{ns}/") == [f"{ns}/orders-0"]
    assert words("explain", f"{ns}/o") == [f"{ns}/orders-0"]
    assert words("explain", "pod", f"{ns}/x") == []
    for command in ("add", "delete", "list", "grant", "revoke"):
        assert words(command, "--namespace", ns) == [ns]
    assert {"default", "kube-system", ns} <= set(words("add", "-n", ""))
    assert offered("delete", "-n", ns, "--name", "") == [("orders", CLIENT)]
    assert offered("grant", "-n", ns, "--identity", CLIENT[:4]) == [(CLIENT, "orders")]
    assert offered("add", "-n", ns, "--binding-selector", "c") == [("checkout", "orders-binding")]
    assert words("exception", "delete", "-n", ns, "--name", "") == ["agents"]
    world.send("DELETE", f"/api/v1/namespaces/{ns}/pods/orders-0", gracePeriodSeconds="0")


HOSTILE = [
    "$(touch /tmp/x)",
    "`touch /tmp/x`",
    "a;touch",
    "a|sh",
    "a b",
    "*",
    "~root",
    "--identity=x",
    "a\nplain,b",
    "a\x1b[2J",
    "a\u202eb",
    "a,b",
    "é",
]


@pytest.mark.parametrize("written", HOSTILE)
@pytest.mark.parametrize(
    "line",
    [
        ("grant", "-n", "shop", "--identity", ""),
        ("add", "-n", "shop", "--binding-selector", ""),
        ("delete", "-n", "shop", "--name", ""),
    ],
    ids=["client ids", "selectors", "names"],
)
def test_what_a_tenant_wrote_completes_no_line_if_a_shell_would_obey_it(
    line: tuple[str, ...], written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell puts the only word that is offered into the line, of whoever may grant everything."""
    found = [
        {"metadata": {"name": "a"}, "spec": {"clientID": written, "selector": written}},
        {"metadata": {"name": "b"}, "spec": {"clientID": CLIENT, "selector": "checkout"}},
        {"metadata": {"name": "c"}, "spec": None},
        {"metadata": {"name": "d"}, "spec": ["clientID"]},
    ]
    monkeypatch.setattr(completing, "read", lambda *_: found)
    told = offered(*line)
    assert told
    assert all(written not in each for each in told)


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An API server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kubeconfig = tmp_path / "config"
        kubeconfig.write_text(
            "{current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: "
            f"c, cluster: {{server: 'http://127.0.0.1:{server.getsockname()[1]}'}}}}]}}"
        )
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield


@pytest.mark.usefixtures("silent")
def test_where_nobody_answers_in_time_nothing_is_offered_and_nobody_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(completing, "SECONDS", 0.01)
    monkeypatch.setattr(completing, "_waiting", [])
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    completing.leave()
    assert left == []
    assert words("explain", "pod", "") == []
    completing.leave()
    assert left == [0]
    assert capfd.readouterr() == ("", "")


def test_where_there_is_no_cluster_nothing_is_offered_and_nothing_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    monkeypatch.setattr(completing, "SECONDS", 30.0)
    assert words("list", "-n", "") == []
    assert capfd.readouterr() == ("", "")


def test_a_person_waits_less_than_a_second() -> None:
    assert completing.SECONDS < 1
