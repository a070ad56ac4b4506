from __future__ import annotations

from typing import Any

import pytest

from tests.cli.binding import Run
from tests.cli.world import World


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["explain", "pod", "default/x"], ["enable"], ["disable"]],
    ids=lambda value: value[0],
)
def test_an_api_server_that_is_away_is_named(
    arguments: list[str], podidentity: Run, tmp_path: Any
) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c}}],"
        " clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]}"
    )
    ran = podidentity(*arguments, "--kubeconfig", str(kubeconfig))
    assert ran.code == 1
    assert "https://127.0.0.1:1 cannot be asked" in ran.err
    assert "Check --kubeconfig and --context." in ran.err


def test_a_kubeconfig_that_is_missing_is_named(podidentity: Run) -> None:
    ran = podidentity("list", "--kubeconfig", "/no/such/file")
    assert ran.code == 1
    assert "/no/such/file" in ran.err


def test_an_unknown_context_is_named(world: World, podidentity: Run) -> None:
    ran = podidentity("list", "--kubeconfig", str(world.plan.kubeconfig), "--context", "moon")
    assert ran.code == 1
    assert "moon" in ran.err
