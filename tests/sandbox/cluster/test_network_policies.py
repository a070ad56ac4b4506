"""A NetworkPolicy says which ways it judges; blocks and ports that make no sense are refused."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster import Obj
from tests.sandbox.cluster.settled import Settled

POLICIES = "networkpolicies.networking.k8s.io"


def policy(**spec: Any) -> Obj:
    return {"metadata": {"name": "some"}, "spec": spec}


def to(block: dict[str, Any] | None = None, **port: Any) -> Obj:
    peers = {"to": [{"ipBlock": block}]} if block is not None else {}
    return policy(egress=[{**peers, **({"ports": [port]} if port else {})}])


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, ["Ingress"]),
        ({"egress": [{}]}, ["Ingress", "Egress"]),
        ({"policyTypes": ["Egress"]}, ["Egress"]),
    ],
)
def test_it_judges_what_arrives_unless_it_says_otherwise(
    world: Settled, spec: Obj, types: list[str]
) -> None:
    made = world.create(POLICIES, policy(**spec)).object["spec"]
    assert (made["policyTypes"], made["podSelector"]) == (types, {})


def test_a_port_is_of_tcp_unless_it_says_otherwise(world: Settled) -> None:
    world.create(POLICIES, to(port=80))
    assert world.the(POLICIES, "some").object["spec"]["egress"][0]["ports"] == [
        {"port": 80, "protocol": "TCP"}
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (policy(policyTypes=["Out"]), 'spec.policyTypes[0]: Unsupported value: "Out"'),
        (to({"cidr": "10.0.0.1"}), "spec.egress[0].to[0].ipBlock.cidr: Invalid value"),
        (
            to({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}),
            "spec.egress[0].to[0].ipBlock.except[0]: Invalid value",
        ),
        (to({"cidr": "10.0.0.0/8", "except": ["x"]}), "except[0]: Invalid value"),
        (policy(egress=[{"to": [{}]}]), "spec.egress[0].to[0]: Required value"),
        (
            policy(egress=[{"to": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}]),
            "spec.egress[0].to[0]: Forbidden",
        ),
        (to(port=0), "spec.egress[0].ports[0].port: Invalid value: 0"),
        (to(protocol="ICMP"), "spec.egress[0].ports[0].protocol: Unsupported value"),
        (to(endPort=9), "spec.egress[0].ports[0].endPort: Invalid value: 9"),
        (to(port=10, endPort=9), "must be greater than or equal to `port`"),
    ],
)
def test_one_that_makes_no_sense_is_refused(world: Settled, body: Obj, message: str) -> None:
    assert message in world.refused(POLICIES, body)
