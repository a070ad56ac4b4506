"""NMI of a Helm release, which the commands know by its labels, and leave as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from podidentity import manifests
from podidentity.cli.agent_choices import chosen
from podidentity.cli.rollout import is_archived_nmi, is_ours, release_of
from tests.cli.conftest import DAEMON_SET, Ran, end_nmi
from tests.cli.world import World

Run = Callable[..., Ran]
SETS = DAEMON_SET.rpartition("/")[0]
NAME = "aad-pod-identity-nmi"


def of_release() -> dict[str, Any]:
    """Return NMI's DaemonSet as the chart makes it, as far as commands look at it."""
    daemon_set: dict[str, Any] = manifests.nmi(extra_args=["--http-probe-port=18085"])[-1]
    selected = {
        "app.kubernetes.io/name": "aad-pod-identity",
        "app.kubernetes.io/instance": "identity",
        "app.kubernetes.io/component": "nmi",
    }
    ours = {**selected, "app.kubernetes.io/part-of": "podidentity"}
    daemon_set["metadata"] |= {
        "name": NAME,
        "labels": {**ours, "app.kubernetes.io/managed-by": "Helm"},
        "annotations": {
            "meta.helm.sh/release-name": "identity",
            "meta.helm.sh/release-namespace": "kube-system",
        },
    }
    daemon_set["spec"]["selector"] = {"matchLabels": selected}
    daemon_set["spec"]["template"]["metadata"]["labels"] = ours
    daemon_set["spec"]["template"]["spec"]["serviceAccountName"] = NAME
    return daemon_set


def test_nmi_of_a_release_is_not_taken_for_the_archived_one() -> None:
    found = of_release()
    assert is_ours(found)
    assert not is_archived_nmi(found)
    assert release_of(found) == "kube-system/identity"
    del found["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"]
    assert is_archived_nmi(found)
    assert release_of(manifests.nmi()[-1]) == ""


def test_its_account_and_flags_are_those_of_its_daemon_set() -> None:
    choices = chosen(of_release())
    assert (choices.account, choices.probe_port) == (NAME, 18085)
    assert chosen(manifests.nmi()[-1]).account == manifests.ACCOUNT
    *_, binding = manifests.account_tokens("account", accounts="identities", agent=choices.account)
    assert [each["name"] for each in binding["subjects"]] == [NAME]


@pytest.fixture
def released(world: World) -> Iterator[World]:
    world.send("POST", SETS, of_release())
    yield world
    world.send("DELETE", f"{SETS}/{NAME}")
    end_nmi(world)


@pytest.mark.parametrize("command", ["enable", "disable"])
def test_enable_and_disable_change_nothing_of_a_release_and_say_what_does(
    released: World, podidentity: Run, command: str
) -> None:
    before = released.get(f"{SETS}/{NAME}")
    ran = podidentity(command)
    assert ran.code == 1
    assert f"kube-system/{NAME} is of the Helm release kube-system/identity" in ran.err
    assert "Nothing was changed" in ran.err
    assert ("helm upgrade" if command == "enable" else "helm uninstall") in ran.err
    assert ran.out == ""
    assert (
        released.get(f"{SETS}/{NAME}")["metadata"]["generation"]
        == (before["metadata"]["generation"])
    )
    assert released.get(DAEMON_SET) is None


@pytest.mark.usefixtures("released")
def test_check_says_on_how_many_nodes_nmi_of_a_release_is_ready(podidentity: Run) -> None:
    ran = podidentity("check")
    assert f"DaemonSet kube-system/{NAME}" in ran.out
