"""What the parts agree on: ids that stay, secrets that change, addresses that do not collide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podidentity_sandbox.plan import Network, OtherVersion, Plan
from podidentity_sandbox.world.blueprint import MOST_NODES, Shape, draw_plan


def plan(
    folder: Path = Path("/nowhere"), nodes: int = MOST_NODES, network: Network = Network.ROUTED
) -> Plan:
    shape = Shape(nodes=nodes, rootless=True, network=network)
    return draw_plan("one", folder, shape)


def test_secrets_change_from_one_up_to_the_next_and_are_shown_by_nobody() -> None:
    one, two = plan(), plan()
    secrets = {one.operator_secret, one.admin_token, *(node.token for node in one.nodes)}
    assert len(secrets) == 2 + MOST_NODES
    assert secrets.isdisjoint({two.operator_secret, two.admin_token, two.nodes[0].token})
    assert not any(secret in repr(one) for secret in secrets)


@pytest.mark.parametrize(
    ("index", "name"),
    [(0, "vmss000000"), (9, "vmss000009"), (10, "vmss00000a"), (36, "vmss000010")],
)
def test_nodes_are_named_as_a_scale_set_names_its_machines(index: int, name: str) -> None:
    node = plan().nodes[index]
    assert node.name == f"aks-nodepool1-12345678-{name}"
    assert node.provider_id == f"azure://{plan().scale_set_id}/virtualMachines/{index}"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "0.0.1"}, "it was made by 0.0.1, and this is "),
        ({"version": None}, "it was made by an earlier version"),
        ({"weather": "sunny"}, "its plan.json is another's"),
        ({"nodes": [{"name": "n"}]}, "its plan.json is another's"),
    ],
)
def test_the_plan_of_another_version_is_refused(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    plan(tmp_path).save()
    raw = {**json.loads((tmp_path / "plan.json").read_text()), **change}
    kept = {key: value for key, value in raw.items() if value is not None}
    (tmp_path / "plan.json").write_text(json.dumps(kept))
    with pytest.raises(OtherVersion, match=why):
        Plan.load(tmp_path)
