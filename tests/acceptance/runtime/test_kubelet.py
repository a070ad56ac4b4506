"""The kubelet with a container runtime does as it does without: restarts, hooks, limits, logs."""

from __future__ import annotations

from podidentity_sandbox.node.cri.pause import SHELL
from tests.acceptance.runtime.node import SERVED, Node, Object


def shell(text: str, **more: object) -> Object:
    return {"image": SHELL, "command": ["sh", "-c", text], **more}


def written(node: Node, pod: Object) -> list[str]:
    """Return what a pod's container wrote in its first run; the pod may be gone."""
    name = f"{SERVED}_{pod['metadata']['name']}_{pod['metadata']['uid']}"
    file = node.plan.path / "nodes" / node.own.name / name / "main/0.log"
    return [line.split(" ", 3)[3] for line in file.read_text().splitlines()]


def state(pod: Object) -> Object:
    """Return the state of a pod's only container; {} before it has one."""
    found: Object = (pod["status"].get("containerStatuses") or [{}])[0]
    return found


def test_a_container_that_ends_runs_again_and_both_logs_are_there(node: Node) -> None:
    once = "echo begun; [ -e /kept/before ] && exec sleep 1000; touch /kept/before; exit 3"
    kept = {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]}
    node.start("again", container=shell(once, **kept), volumes=[{"name": "kept", "emptyDir": {}}])
    node.become(lambda pod: bool(state(pod).get("restartCount")) and state(pod)["ready"], "again")
    assert state(node.get("again"))["lastState"]["terminated"]["exitCode"] == 3
    for which in ((), ("--previous",)):
        assert node.place.run("kubectl", "logs", "-n", SERVED, "again", *which) == "begun\n"
    node.drop("again")


def test_the_hook_runs_before_sigterm_and_the_grace_is_kept(node: Node) -> None:
    text = "trap 'echo asked; exit' TERM; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >/proc/1/fd/1"]}}}
    node.ready(node.start("polite", container=shell(text, lifecycle=hook)))
    pod = node.get("polite")
    node.delete("polite")
    assert written(node, pod) == ["hook", "asked"]


def test_a_container_that_takes_more_memory_than_its_limit_is_ended(node: Node) -> None:
    hog = {"image": SHELL, "command": ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]}
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    node.start("hog", container={**hog, **limits}, restartPolicy="Never")
    node.become(lambda pod: pod["status"].get("phase") == "Failed", "hog")
    ended = state(node.get("hog"))["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    node.drop("hog")
