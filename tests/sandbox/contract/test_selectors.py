from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster.kinds.table import BUILT_IN
from podidentity_sandbox.cluster.selectors import matches_labels, select
from podidentity_sandbox.cluster.status import StatusError

PODS = next(kind for kind in BUILT_IN if kind.key == "pods")
EVENTS = next(kind for kind in BUILT_IN if kind.key == "events")
LABELS = {"app": "web", "tier": "front"}
POD: dict[str, Any] = {
    "metadata": {"name": "a", "namespace": "shop", "labels": LABELS},
    "spec": {"nodeName": "node-1", "hostNetwork": True},
    "status": {"phase": "Running"},
}


# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app=other", False),
        ("app!=other", True),
        ("missing!=x", True),
        ("app!=web", False),
        ("app in (web, api)", True),
        ("app in (api)", False),
        ("missing in (x)", False),
        ("app notin (api)", True),
        ("missing notin (x)", True),
        ("app notin (web,api)", False),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("!app", False),
        ("app=web,tier=front", True),
        ("app=web,tier=back", False),
        ("app in (web,api),tier", True),
        ("app=", False),
        ("missing in (x,)", False),
        ("app in (,web)", True),
        ("missing notin ()", True),
        ("app in (in,web)", True),
        (" app = web , ! missing ", True),
    ],
)
def test_a_label_selector_chooses_by_its_grammar(selector: str, matches: bool) -> None:
    assert select(PODS, "", selector, "").matches(POD) is matches


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("metadata.name=a", True),
        ("metadata.name!=a", False),
        ("metadata.namespace=shop", True),
        ("spec.nodeName=node-1", True),
        ("spec.nodeName=node-2", False),
        ("spec.nodeName=", False),
        ("status.podIP=", True),
        ("status.phase!=Succeeded,status.phase!=Failed", True),
        ("spec.hostNetwork=true", True),
    ],
)
def test_a_field_selector_compares_text(selector: str, matches: bool) -> None:
    assert select(PODS, "", "", selector).matches(POD) is matches


def test_events_are_found_by_what_they_are_about() -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"name": "a", "kind": "Pod"}}
    assert select(EVENTS, "", "", "involvedObject.name=a,involvedObject.kind=Pod").matches(event)
    assert not select(EVENTS, "", "", "involvedObject.name=b").matches(event)


def test_a_namespace_limits_what_is_chosen() -> None:
    assert select(PODS, "shop", "", "").matches(POD)
    assert not select(PODS, "other", "", "").matches(POD)


@pytest.mark.parametrize(
    ("labels", "fields", "says"),
    [
        ("", "nonsense", "invalid selector"),
        *(
            (text, "", "unable to parse requirement")
            for text in (
                "-app=web",
                "a in b",
                "a in (b c)",
                "a b",
                "!a=b",
                "=a",
                "a,",
                "a>1",
                "a=b_",
            )
        ),
    ],
)
def test_a_selector_that_cannot_be_read_is_a_bad_request(
    labels: str, fields: str, says: str
) -> None:
    with pytest.raises(StatusError, match=says) as refusal:
        select(PODS, "", labels, fields)
    assert refusal.value.code == 400


def test_a_label_selector_object_holds_when_all_of_it_does() -> None:
    labels = {"app": "web"}
    rule = {"key": "app", "operator": "In", "values": ["web"]}
    assert matches_labels({"matchLabels": {"app": "web"}, "matchExpressions": [rule]}, labels)
    assert not matches_labels({"matchLabels": {"app": "api"}, "matchExpressions": [rule]}, labels)
    assert not matches_labels({"matchExpressions": [{**rule, "operator": "NotIn"}]}, labels)
    assert not matches_labels({"matchExpressions": [{**rule, "operator": "Nonsense"}]}, labels)
