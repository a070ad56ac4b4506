"""The agent's two containers have the rights that they need, and none besides.

`net` is root with three capabilities. With one of them taken away the agent is not ready and says
which to give, also on a node where no pod has asked for anything yet. `serve` has no capability, a
user of its own, and the API token, which `net` has not.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from podidentity_sandbox.node.client import execute
from podidentity_sandbox.world.api import Api, ready
from tests.acceptance.sandbox import PATIENCE, Sandbox, opened
from tests.sandboxes import own

NUMBERS = {"DAC_READ_SEARCH": 2, "NET_ADMIN": 12, "SYS_ADMIN": 21}
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
SERVE = 64912
LABEL = "app.kubernetes.io/component=nmi"
PODS, EVENTS = (f"/api/v1/namespaces/kube-system/{kind}" for kind in ("pods", "events"))


@dataclass
class Agent:
    """The agent of the one node, whose DaemonSet is made again for each test."""

    place: Sandbox
    api: Api
    loop: asyncio.Runner
    manifest: dict[str, Any]
    """The DaemonSet as `enable` makes it."""

    def start(self, *capabilities: str) -> str:
        """Run the agent with these capabilities for `net`; return its pod's name."""
        wanted = copy.deepcopy(self.manifest)
        (net,) = [c for c in wanted["spec"]["template"]["spec"]["containers"] if c["name"] == "net"]
        net["securityContext"]["capabilities"]["add"] = list(capabilities)
        where = ("-n", "kube-system")
        self.place.run("kubectl", "delete", "daemonset", "nmi", *where, "--cascade=foreground")
        self.place.run("kubectl", "create", "-f", "-", given=json.dumps(wanted))
        for _, pod in self.api.follow(PODS, PATIENCE):
            if pod["metadata"]["name"].startswith("nmi-"):
                return str(pod["metadata"]["name"])
        raise AssertionError("the DaemonSet made no pod")

    def is_ready(self, pod: str) -> bool:
        """Wait until the pod is ready; False if it does not get so."""
        return not self.api.wait_for(PODS, [pod], ready, PATIENCE)

    def unhealthy(self, pod: str, words: str) -> None:
        """Wait until a probe of the pod fails and says these words."""
        for _, event in self.api.follow(EVENTS, PATIENCE):
            ours = event["involvedObject"]["name"] == pod
            if ours and event["reason"] == "Unhealthy" and words in event["message"]:
                return
        raise AssertionError(f"{pod} does not say {words}: {self.events(pod)}")

    def found_by_check(self) -> str:
        """Return what `podidentity check` says that NMI lacks."""
        (found,) = [each for each in self.place.check() if each["reason"] == "NotReady"]
        return found["message"]

    def events(self, pod: str) -> list[str]:
        items = self.api.request("GET", EVENTS)["items"]
        return [each["message"] for each in items if each["involvedObject"]["name"] == pod]

    def log(self, pod: str, *more: str) -> str:
        return self.place.run("kubectl", "logs", pod, "-n", "kube-system", "-c", "net", *more)

    def says(self, pod: str, container: str, *command: str) -> str:
        run = execute(self.place.plan, "kube-system", pod, command, container=container)
        return self.loop.run(run).stdout.decode()

    def status(self, pod: str, container: str) -> dict[str, str]:
        """Return /proc/1/status of a container."""
        lines = self.says(pod, container, "cat", "/proc/1/status").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with opened(own("rights")) as (place, _, loop):
        place.run("podidentity", "enable")
        made = place.api.request("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets/nmi")
        metadata = {key: made["metadata"][key] for key in ("name", "namespace", "labels")}
        manifest = {**made, "metadata": metadata}
        manifest.pop("status")
        yield Agent(place, place.api, loop, manifest)


@pytest.fixture(scope="module")
def whole(agent: Agent) -> str:
    """The agent's pod, with exactly the three capabilities."""
    pod = agent.start(*NUMBERS)
    assert agent.is_ready(pod), agent.events(pod)
    return pod


def test_net_has_three_capabilities_and_no_other(agent: Agent, whole: str) -> None:
    told = agent.status(whole, "net")
    three = sum(1 << number for number in NUMBERS.values())
    assert {name: int(told[name], 16) for name in SETS} == {
        **dict.fromkeys(("CapPrm", "CapEff", "CapBnd"), three),
        **dict.fromkeys(("CapInh", "CapAmb"), 0),
    }


def test_serve_has_a_user_of_its_own_and_no_capability(agent: Agent, whole: str) -> None:
    told = agent.status(whole, "serve")
    assert {name: int(told[name], 16) for name in SETS} == dict.fromkeys(SETS, 0)
    assert told["Uid"].split() == [str(SERVE)] * 4
    assert told["NoNewPrivs"] == "1"


def test_serve_has_the_token_and_net_has_none(agent: Agent, whole: str) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert agent.says(whole, "serve", "cat", f"{folder}/token").count(".") == 2
    assert agent.says(whole, "net", "ls", folder) == ""
    assert agent.says(whole, "serve", "stat", "-Lc", "%u:%g %a", f"{folder}/token") in {
        f"0:{SERVE} 640\n",
        f"{SERVE}:{SERVE} 600\n",
    }


@pytest.mark.parametrize("missing", NUMBERS)
def test_without_one_of_the_three_the_agent_is_not_ready_and_says_which_to_give(
    agent: Agent, missing: str
) -> None:
    pod = agent.start(*(name for name in NUMBERS if name != missing))
    agent.unhealthy(pod, f"CAP_{missing}")
    assert not ready(agent.api.request("GET", f"{PODS}/{pod}"))
    assert f"CAP_{missing}" in agent.found_by_check()
