"""What NetworkPolicies say of a pod's requests: of each rule, before and after redirection."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from podidentity.cli.chain import Fact, LinkState
from podidentity.cli.network_policies import egress_of
from podidentity.kernel.rules import Redirect
from tests.cli.conftest import Ran
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.world import World

REDIRECT = Redirect()
LABELS = {"app": "orders", "tier": "back"}
POLICIES = "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"


def policy(*rules: dict[str, Any], name: str = "deny", **spec: Any) -> dict[str, Any]:
    judged = {"podSelector": {}, "policyTypes": ["Egress"], "egress": list(rules)}
    return {"metadata": {"name": name}, "spec": {**judged, **spec}}


def out(cidr: str, port: int | None = None, **more: Any) -> dict[str, Any]:
    ports = {} if port is None else {"ports": [{"protocol": "TCP", "port": port}]}
    return {"to": [{"ipBlock": {"cidr": cidr}}], **ports, **more}


def test_the_rule_that_is_missing_is_that_of_nmis_flags() -> None:
    other = Redirect(listen_address="10.240.0.4", listen_port=9000)
    found = egress_of(LABELS, [policy()], other)
    assert found is not None
    missing = found.missing(other)
    assert "169.254.169.254/32, TCP port 80" in missing
    assert "10.240.0.4/32, TCP port 9000" in missing


@pytest.mark.parametrize(
    ("rule", "open_"),
    [
        ({}, (True, True)),
        (out("0.0.0.0/0"), (True, True)),
        (out("169.254.0.0/16"), (True, True)),
        (out("169.254.169.254/32", 80), (True, False)),
        (out("169.254.25.79/32", 2579), (False, True)),
        (out("169.254.169.254/32", 443), (False, False)),
        (out("169.254.169.254/32", ports=[{"port": 1, "endPort": 3000}]), (True, False)),
        (out("0.0.0.0/0", ports=[{"port": 1, "endPort": 3000}]), (True, True)),
        (out("0.0.0.0/0", ports=[{"protocol": "UDP"}]), (False, False)),
        (out("0.0.0.0/0", ports=[{"protocol": "TCP"}]), (True, True)),
        (out("0.0.0.0/0", ports=[{"port": "http"}]), (False, False)),
        (
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}]},
            (False, True),
        ),
        ({"to": [{"ipBlock": {"cidr": "::/0"}}]}, (False, False)),
        ({"to": [{"namespaceSelector": {}}]}, (False, False)),
        ({"to": [{"podSelector": {}}, {"ipBlock": {"cidr": "169.254.169.254/32"}}]}, (True, False)),
        ({"ports": [{"port": 80}]}, (True, False)),
    ],
)
def test_a_rule_opens_what_its_blocks_and_ports_have(
    rule: dict[str, Any], open_: tuple[bool, bool]
) -> None:
    found = egress_of(LABELS, [policy(rule)], REDIRECT)
    assert found is not None
    assert (found.before, found.after) == open_


@pytest.mark.parametrize(
    ("spec", "judges"),
    [
        ({}, True),
        ({"policyTypes": ["Ingress"]}, False),
        ({"policyTypes": []}, True),
        ({"podSelector": {"matchLabels": {"app": "orders"}}}, True),
        ({"podSelector": {"matchLabels": {"app": "orders", "tier": "front"}}}, False),
        *(
            (
                {
                    "podSelector": {
                        "matchExpressions": [{"key": key, "operator": how, "values": of}]
                    }
                },
                it,
            )
            for key, how, of, it in (
                ("app", "In", ["orders", "bank"], True),
                ("app", "In", ["bank"], False),
                ("app", "NotIn", ["bank"], True),
                ("zone", "NotIn", ["west"], True),
                ("app", "NotIn", ["orders"], False),
                ("app", "Exists", [], True),
                ("zone", "Exists", [], False),
                ("zone", "DoesNotExist", [], True),
                ("app", "DoesNotExist", [], False),
            )
        ),
    ],
)
def test_a_policy_judges_the_egress_of_pods_that_it_selects(
    spec: dict[str, Any], *, judges: bool
) -> None:
    assert (egress_of(LABELS, [policy(**spec)], REDIRECT) is not None) is judges


@pytest.mark.parametrize(
    ("cidr", "allowed"),
    [
        ("169.254.0169.0254/32", True),
        ("000.0.0.0/0", True),
        ("010.0.0.0/8", False),
        ("::/0", False),
    ],
)
def test_a_block_with_zeros_before_its_numbers_ends_no_check(cidr: str, allowed: bool) -> None:
    """As a tenant may write it, and the API server takes it."""
    policy = {"metadata": {"name": "p"}, "spec": {"podSelector": {}, "egress": [out(cidr)]}}
    found = egress_of({}, [policy], Redirect())
    assert found is not None
    assert found.before is allowed


def test_of_several_policies_one_that_allows_is_enough() -> None:
    policies = [policy(name="b"), policy(out("169.254.169.254/32", 80), name="a")]
    found = egress_of(LABELS, [*policies, policy(out("169.254.25.79/32"), name="c")], REDIRECT)
    assert found is not None
    assert found.policies == ("a", "b", "c")
    assert found.fact(REDIRECT) == Fact(LinkState.HOLDS, "a, b, c: 169.254.169.254 may be asked")
    half = egress_of(LABELS, policies, REDIRECT)
    assert half is not None
    assert half.fact(REDIRECT) == Fact(
        LinkState.UNKNOWN,
        "a, b: allow egress to 169.254.25.79/32, TCP port 2579"
        " (where they see where it goes to: Calico)",
    )


def test_explain_and_check_name_the_policy_and_the_rule_that_is_needed(
    world: World, ns: str, podidentity: Callable[..., Ran]
) -> None:
    world.custom(
        ns,
        "azureidentities",
        "orders",
        {"type": 0, "clientID": CLIENT, "resourceID": IDENTITY},
    )
    binding = {"azureIdentity": "orders", "selector": "orders"}
    world.custom(ns, "azureidentitybindings", "orders", binding)
    world.pod(ns, "orders-0", {"aadpodidbinding": "orders"})
    path = POLICIES.format(ns)
    world.send("POST", path, policy(name="default-deny"))

    need = (
        "llow egress to 169.254.169.254/32, TCP port 80 (where policies see what the pod asked "
        "for: Cilium) and 169.254.25.79/32, TCP port 2579 (where they see where it goes to: Calico)"
    )
    ran = podidentity("explain", "pod", f"{ns}/orders-0", "-o", "json")
    links = {each["link"]: each for each in json.loads(ran.out)["chain"]}
    assert ran.code == 1
    assert links["network policy"]["state"] == "no"
    assert links["network policy"]["text"] == f"default-deny: a{need}"
    ran = podidentity("check", "-o", "json")
    (found,) = [each for each in json.loads(ran.out) if each["reason"] == "EgressClosed"]
    assert (ran.code, found["kind"], found["name"]) == (1, "NetworkPolicy", "default-deny")
    assert found["nextStep"] == f"A{need}."
    assert f"{ns}/orders-0" in found["message"]

    world.send("POST", path, policy(out("169.254.169.254/32", 80), name="to-imds"))
    ran = podidentity("explain", "pod", f"{ns}/orders-0", "-o", "json")
    links = {each["link"]: each for each in json.loads(ran.out)["chain"]}
    assert links["network policy"]["state"] == "?"
    ran = podidentity("check", "-o", "json")
    assert "EgressClosed" not in ran.out
