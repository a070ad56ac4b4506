"""`explain` has NMI probe the path of a pod: the question, and what its answer comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from podidentity.cli import path_check
from podidentity.core.resources import BINDING_LABEL
from tests.cli.binding import Run
from tests.cli.conftest import PODS
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.test_explain import chain_of
from tests.cli.world import World

NUMBER = "0123456789abcdef"
EVENTS = "/api/v1/namespaces/kube-system/events"
LABELS = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}
Answer = Callable[[str, str], None]


@pytest.fixture
def agent(world: World, ns: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """A ready pod of NMI, and one of a tenant, on the same node; nobody answers."""
    monkeypatch.setattr(path_check, "token_hex", lambda _: NUMBER)
    world.pod("kube-system", "nmi-by-hand", LABELS, node=1)
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    world.send("PATCH", f"{PODS}/nmi-by-hand/status", {"status": status})
    world.custom(ns, "azureidentities", "orders", {"clientID": CLIENT, "resourceID": IDENTITY})
    world.custom(ns, "azureidentitybindings", "o", {"azureIdentity": "orders", "selector": "o"})
    world.pod(ns, "a", {BINDING_LABEL: "o"}, node=1)
    return world


@pytest.fixture
def granted(ns: str, podidentity: Run) -> None:
    """Let the pod use its identity."""
    assert podidentity("grant", "-n", ns, "--identity", CLIENT).code == 0


@pytest.fixture
def answer(agent: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answer]:
    """Have NMI's pod answer beforehand, by this reason and message."""
    monkeypatch.setattr(path_check, "SECONDS", 60.0)
    name = f"podidentity-probe.{NUMBER}"

    def told(reason: str, message: str) -> None:
        pod = agent.get(f"{PODS}/nmi-by-hand")["metadata"]
        about = {"kind": "Pod", "apiVersion": "v1", "name": pod["name"], "uid": pod["uid"]}
        metadata = {"name": name, "namespace": "kube-system"}
        body = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "reason": reason}
        involved = {**about, "namespace": "kube-system"}
        more = {"message": message, "type": "Warning", "involvedObject": involved}
        agent.send("POST", EVENTS, body | more)

    yield told
    agent.send("DELETE", f"{EVENTS}/{name}")


@pytest.mark.usefixtures("granted")
@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        ("ProbeArrived", (0, "clear", "ok")),
        ("ProbeLost", (1, "refused", "no")),
        ("ProbeNotSent", (0, "clear", "?")),
    ],
)
def test_the_answer_to_a_probe_is_a_link_of_the_chain(
    ns: str, podidentity: Run, answer: Answer, reason: str, ends: tuple[int, str, str]
) -> None:
    answer(reason, "a request was sent; do this next")
    ran = podidentity("explain", f"{ns}/a", "-o", "json")
    found: dict[str, Any] = chain_of(ran)
    state, text = found["path"]
    assert (ran.code, found["verdict"], state) == ends
    assert (text, ran.err) == ("a request was sent; do this next", "")


@pytest.mark.usefixtures("granted")
def test_the_question_names_the_pod_on_the_agents_own_pod(
    agent: World, ns: str, podidentity: Run
) -> None:
    podidentity("explain", f"{ns}/a")
    asked = agent.get(f"{PODS}/nmi-by-hand")["metadata"]["annotations"]
    assert asked == {"aadpodidentity.k8s.io/probe": f"{NUMBER} {ns}/a"}


@pytest.mark.usefixtures("agent", "granted")
def test_an_agent_that_does_not_answer_proves_nothing_and_changes_no_exit_status(
    ns: str, podidentity: Run
) -> None:
    ran = podidentity("explain", f"{ns}/a", "-o", "json")
    state, text = chain_of(ran)["path"]
    assert (ran.code, state) == (0, "?")
    assert text.startswith("not probed: pod kube-system/nmi-by-hand did not answer within")


@pytest.mark.usefixtures("agent")
def test_the_path_of_a_pod_that_the_rules_refuse_is_not_probed(ns: str, podidentity: Run) -> None:
    ran = podidentity("explain", f"{ns}/a", "-o", "json")
    found = chain_of(ran)
    assert (ran.code, found["verdict"]) == (1, "refused")
    assert "path" not in found
