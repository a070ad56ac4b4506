"""Labels of pods that lead to no identity: what `check` says was probably meant."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from podidentity.adapters.clock import SystemClock
from podidentity.cli.checks import labels
from podidentity.cli.checks.findings import Finding, Severity
from podidentity.cli.checks.labels import (
    MOST_LABELS,
    MOST_SELECTORS,
    misspelt,
    nearest,
    not_theirs,
    on_the_node,
    unmatched,
)
from podidentity.cli.checks.rules import matches
from podidentity.core.decision import STRICT, Match, Use
from podidentity.core.resources import AzureIdentityBinding, Malformed, ObjectRef
from tests.cli.conftest import Ran
from tests.cli.world import World
from tests.fakes import binding, cluster, identity, pod

BOUND = [identity(), binding()]
"""AzureIdentity shop/orders, and its binding of selector `orders`."""


def matched(*objects: Any) -> list[Match]:
    known = cluster(SystemClock(), *objects)
    for each in objects:
        if isinstance(each, Malformed):
            known.put(each)
    return matches(known, STRICT)


def labelled(value: str, name: str = "a", key: str = "aadpodidbinding", **more: Any) -> Any:
    return pod(name, labels={key: value}, **more)


def lost(*pods: Any) -> list[Finding]:
    there = [each for each in BOUND if isinstance(each, AzureIdentityBinding)]
    return list(unmatched(matched(*BOUND, *pods), there))


@pytest.mark.parametrize(
    ("label", "mend"),
    [
        ("Orders", "Did you mean aadpodidbinding=orders, of AzureIdentityBinding shop/"),
        ("ordres", "Did you mean aadpodidbinding=orders"),
        ("mail", "Run podidentity add --namespace shop --binding-selector mail, or correct"),
    ],
)
def test_a_label_that_matches_nothing_is_told_with_the_selector_that_was_meant(
    label: str, mend: str
) -> None:
    (found,) = lost(labelled(label))
    assert (found.kind, found.about, found.reason) == ("Pod", ObjectRef("shop", "a"), "NoBinding")
    assert found.mend.startswith(mend)
    assert found.severity is Severity.ERROR


def test_pods_of_one_label_are_one_finding_and_those_that_match_are_none() -> None:
    pods = [labelled("Orders", name, addresses=(f"10.0.0.{n}",)) for n, name in enumerate("bac")]
    (found,) = lost(*pods, labelled("orders", "fine"))
    assert found.what.startswith("3 pods, such as shop/a, have the label aadpodidbinding=Orders")


def test_a_binding_of_another_namespace_is_not_what_was_meant() -> None:
    assert nearest("orders", {}) is None
    (found,) = lost(labelled("Orders", ref=ObjectRef("bank", "a")))
    assert "Did you mean" not in found.mend


def test_a_tenant_with_thousands_of_labels_and_selectors_has_few_of_them_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each pair takes half a millisecond: `check` would take hours."""
    compared = 0

    def close(_: str, some: list[str], **__: Any) -> list[str]:
        nonlocal compared
        compared += len(some)
        return []

    monkeypatch.setattr(labels, "get_close_matches", close)
    bound = [
        binding(f"b{n}", selector=f"selector-{n}", identity="orders")
        for n in range(MOST_SELECTORS * 5)
    ]
    pods = [
        labelled(f"label-{n}", f"p{n}", addresses=(f"10.1.{n // 250}.{n % 250}",))
        for n in range(500)
    ]
    found = list(unmatched(matched(*BOUND, *bound, *pods), bound))
    assert len(found) == 500
    assert 0 < compared <= MOST_LABELS * MOST_SELECTORS
    there = {each.selector: each for each in bound}
    last = f"SELECTOR-{MOST_SELECTORS * 5 - 1}"
    assert nearest(last, there) is there[last.lower()]


def test_a_malformed_binding_does_not_hide_that_the_label_is_wrong() -> None:
    empty = Malformed(
        ref=ObjectRef("shop", "empty"), kind="AzureIdentityBinding", why="spec.selector is empty"
    )
    assert [each.reason for each in lost(empty, labelled("Orders"))] == ["NoBinding"]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("aadPodIdBinding", "orders", "the label aadPodIdBinding in place of aadpodidbinding"),
        ("azure/aadpodidbinding", "orders", "the label azure/aadpodidbinding in place of"),
        ("aadpodidbinding", "", "the label aadpodidbinding with no value"),
        ("aadpodidbindng", "orders", "the label aadpodidbindng in place of aadpodidbinding"),
        ("app", "orders", None),
        ("podbinding", "orders", None),
    ],
)
def test_a_label_of_nearly_the_right_name_is_found(key: str, value: str, told: str | None) -> None:
    found = list(misspelt(matched(*BOUND, labelled(value, key=key))))
    assert [told is not None and told in each.what for each in found] == [True] * bool(told)


def test_pods_in_the_network_of_their_node_have_nothing_by_their_label() -> None:
    (found,) = on_the_node(matched(*BOUND, labelled("orders", host_network=True)))
    assert (found.reason, found.severity) == ("HostNetwork", Severity.WARNING)
    assert list(on_the_node(matched(pod("plain", labels={}, host_network=True)))) == []


def test_a_service_account_that_lacks_what_others_of_its_namespace_have_is_found() -> None:
    pods = [
        labelled("orders", "job-0", service_account="job", addresses=("10.0.0.1",)),
        labelled("orders", "job-1", service_account="job", addresses=("10.0.0.2",)),
        labelled("orders", "web-0", service_account="web", addresses=("10.0.0.3",)),
    ]

    def only_web(use: Use) -> bool:
        return use.service_account.name == "web"

    (found,) = not_theirs(matched(*BOUND, *pods), lambda *_: [], only_web)
    assert (found.kind, str(found.about), found.reason) == ("Pod", "shop/job-0", "NotPermitted")
    assert found.what.startswith("2 pods, such as shop/job-0, have service account shop/job, which")
    assert found.mend.startswith("Run podidentity grant --namespace shop --service-account job ")
    nobody = list(not_theirs(matched(*BOUND, *pods), lambda *_: ["x"], lambda _: False))
    assert nobody == [], "that nobody of a namespace may is found by itself"


def test_the_command_finds_labels_and_service_accounts_that_lead_to_no_token(
    world: World, ns: str, podidentity: Callable[..., Ran]
) -> None:
    client = str(uuid.uuid4())
    world.custom(ns, "azureidentities", "orders", {"type": 0, "clientID": client})
    spec = {"azureIdentity": "orders", "selector": "orders"}
    world.custom(ns, "azureidentitybindings", "orders", spec)
    grant = ("grant", "-n", ns, "--service-account", "web", "--identity", client)
    assert podidentity(*grant).code == 0
    world.pod(ns, "near", {"aadpodidbinding": "Orders"})
    world.pod(ns, "job", {"aadpodidbinding": "orders"})
    ran = podidentity("check", "-o", "json")
    mine = {each["name"]: each for each in json.loads(ran.out) if each["namespace"] == ns}
    assert ran.code == 1
    assert mine["near"]["nextStep"].startswith("Did you mean aadpodidbinding=orders")
    assert mine["job"]["reason"] == "NotPermitted"
    assert f"--service-account default --identity {client}" in mine["job"]["nextStep"]
