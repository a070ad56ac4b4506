"""A plan of two nodes, and a clock: what every test of Azure starts from."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

from podidentity_sandbox.plan import NodePlan, Plan, stable_guid


class Clock:
    """Seconds since 1970 that a test turns."""

    def __init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC).timestamp()

    def __call__(self) -> float:
        return self.now


def node(index: int, pod_cidr: str) -> NodePlan:
    name = f"node-{index}"
    return NodePlan(
        name=name,
        index=index,
        address=f"10.240.0.{4 + index}",
        pod_cidr=pod_cidr,
        gateway="127.0.0.1",
        provider_id=f"azure://{stable_guid('test', name)}",
        token="kubelet-token",
    )


def make_plan(folder: Path) -> Plan:
    plan = Plan(
        name="test",
        folder=str(folder),
        rootless=False,
        tenant_id=stable_guid("test", "tenant"),
        subscription_id=stable_guid("test", "subscription"),
        operator_id=stable_guid("test", "operator"),
        operator_secret="operator-secret",
        admin_token="admin-token",
        aks_token="aks-token",
        nodes=(),
    )
    first, second = node(0, "127.0.0.0/24"), node(1, "127.0.1.0/24")
    instance = f"azure://{plan.scale_set_id}/virtualMachines/"
    nodes = tuple(replace(one, provider_id=f"{instance}{one.index}") for one in (first, second))
    return replace(plan, nodes=nodes)
