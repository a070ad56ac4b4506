"""Whatever the agent needs of its node, and does not get, keeps it from being ready.

It says which it is, and what to do about it. Meanwhile nobody is given a token by a weaker proof.
"""

from __future__ import annotations

import pytest

from tests.acceptance.runtime.alone import Change, agent, changed, probed, until_said
from tests.acceptance.runtime.conftest import KINDS
from tests.acceptance.runtime.node import SYSTEM, Node, Object
from tests.kubernetes.nodes.test_programs import until


def without(name: str) -> Change:
    def change(_: Object, net: Object) -> None:
        net["securityContext"]["capabilities"]["add"].remove(name)

    return change


def unmounted(name: str) -> Change:
    def change(_: Object, net: Object) -> None:
        net["volumeMounts"] = [each for each in net["volumeMounts"] if each["name"] != name]

    return change


def unpropagated(_: Object, net: Object) -> None:
    (mount,) = [each for each in net["volumeMounts"] if each["name"] == "netns"]
    del mount["mountPropagation"]


MISSING: dict[str, tuple[Change, str]] = {
    "CAP_SYS_ADMIN": (without("SYS_ADMIN"), "CAP_SYS_ADMIN"),
    "CAP_DAC_READ_SEARCH": (without("DAC_READ_SEARCH"), "CAP_DAC_READ_SEARCH"),
    "the mount of the cgroups": (unmounted("cgroup"), "mount the node's /sys/fs/cgroup there"),
    "the folder of both programs": (
        unmounted("runtime"),
        "mount one there that net and serve share",
    ),
    "the mount of the namespaces": (unmounted("netns"), "with propagation HostToContainer"),
}


@pytest.mark.parametrize("what", MISSING)
def test_without_it_the_agent_is_not_ready_and_says_what_to_do(
    alone: tuple[Node, Object], what: str
) -> None:
    node, template = alone
    change, words = MISSING[what]
    refused(node, changed(template, change), words)


def test_without_the_right_to_set_rules_it_is_not_ready_and_says_which_to_give(
    alone: tuple[Node, Object],
) -> None:
    """The rules of the agent before are in place, and the proof is whole: pods may be served."""
    node, template = alone
    with agent(node, changed(template, without("NET_ADMIN"))) as name:
        until_said(node, name, "CAP_NET_ADMIN")


def test_without_propagation_it_is_not_ready_and_new_pods_are_unknown_and_no_forgers(
    alone: tuple[Node, Object],
) -> None:
    node, template = alone
    with agent(node, changed(template, unpropagated)) as name:
        while not probed(node, name).startswith("ok"):
            pass  # until a pod starts there is nothing to be seen
        node.ready(node.start("unseen"))
        first = node.ask("unseen")
        until_said(node, name, "HostToContainer")
        later = node.ask("unseen")
        node.delete("unseen")
        assert (first.status, later.status) == (503, 503), (first, later)


def test_with_the_namespaces_taken_from_their_folder_pods_are_unknown_and_it_is_said(
    alone: tuple[Node, Object],
) -> None:
    node, template = alone
    with agent(node, template) as name:
        node.ready(name, namespace=SYSTEM)
        assert node.ask("app").status == 200
        node.on_node("cd /run/netns && for each in *; do umount $each && rm $each; done")
        assert node.ask("app").status == 503
        until_said(node, name, "no network namespace is in /run/netns")
        # Pods that start from now on have one there; those of before are unknown until they end.
        node.ready(node.start("after"))
        until(lambda: probed(node, name).startswith("ok"))
        assert (node.ask("after").status, node.ask("app").status) == (200, 503)
        node.delete("after")


def refused(node: Node, template: Object, words: str) -> None:
    """Run the agent by this template: it must be unready, with these words, and give nothing."""
    with agent(node, template) as name:
        until_said(node, name, words, give_nothing_to="app")


OTHERWISE: dict[str, tuple[Object, str]] = {
    "the runtime's folder of namespaces is another": (
        {"own_netns_folder": True},
        "netns_mounts_under_state_dir",
    ),
    "the runtime's cgroup driver is not the kubelet's": (
        {"driver": "systemd", "runtime_driver": "cgroupfs"},
        "SystemdCgroup",
    ),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_on_a_node_that_is_set_up_otherwise_the_agent_is_not_ready_and_says_why(
    alone: tuple[Node, Object], what: str
) -> None:
    node, template = alone
    options, words = OTHERWISE[what]
    node.reboot(**{**KINDS["routed-cgroupfs-runc"], **options})
    node.ready("app")
    refused(node, template, words)
