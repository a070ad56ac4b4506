"""The parts of a real control plane.

A program of Kubernetes takes the place of this process, which therefore is the part: to pause, kill
or measure the part is to do it to the program. A process beside it asks whether the program serves,
says `ready`, and ends.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from podidentity_sandbox.kubernetes.programs import GO, SANDBOX, SCHEDULER_PORT, At, command
from podidentity_sandbox.plan import Plan

_PAUSE = 50
"""Milliseconds between two questions whether a program serves."""
_SECONDS = 5.0
_RBAC = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
_DISCOVERY = "system:service-account-issuer-discovery"


def main() -> None:
    parser = argparse.ArgumentParser(prog="podidentity_sandbox.kubernetes", description=__doc__)
    parser.add_argument("part")
    parser.add_argument("--node", default="")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--listen-fd", type=int, action="append", default=[])
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--at", type=At.on, default=SANDBOX, metavar="ADDRESS")
    given = parser.parse_args()
    plan = Plan.load(given.folder)
    if given.part == "proxy":
        from podidentity_sandbox.kubernetes import proxy  # the others start without its libraries

        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
        proxy.main(plan, given.listen_fd, given.ready_fd, given.at)
    elif given.node:
        from podidentity_sandbox.kubernetes import nodes

        node = plan.node(given.node)
        if given.part == "machine":
            nodes.boot(plan, node)
            os.write(given.ready_fd, b"ready\n")
            os.set_inheritable(given.ready_fd, False)
            os.execvp("sleep", ["sleep", "infinity"])  # noqa: S606 - of this machine
        nodes.enter(plan, node)
        serves = nodes.serves(plan, given.part)
        _become(nodes.command(plan, node, given.part), serves, given.ready_fd)
    else:
        os.environ.update(GO)
        words = command(plan, given.part, given.at)
        _become(words, lambda: program_serves(plan, given.part, given.at), given.ready_fd)


def _become(words: Sequence[str], serves: Callable[[], bool], ready_fd: int) -> None:
    """Run a program in this process's place, and say when it serves."""
    program = os.pidfd_open(os.getpid())
    if (child := os.fork()) == 0:
        if os.fork() == 0:  # it is the supervisor's from now on, which waits for it
            _tell(program, serves, ready_fd)
        os._exit(0)
    os.waitpid(child, 0)
    os.set_inheritable(ready_fd, False)
    os.execv(words[0], list(words))  # noqa: S606 - a path of the plan, and no shell is wanted


def _tell(program: int, serves: Callable[[], bool], ready_fd: int) -> None:
    ended = select.poll()
    ended.register(program, select.POLLIN)
    while not ended.poll(_PAUSE):
        try:
            if serves():
                os.write(ready_fd, b"ready\n")
                return
        except (OSError, HTTPException):
            pass  # it does not listen yet, or is still busy


def program_serves(plan: Plan, program: str, at: At) -> bool:
    """Whether a program is ready; raise OSError or HTTPException where it does not answer."""
    return _SERVES[program](plan, at)


def _etcd_serves(_: Plan, at: At) -> bool:
    connection = HTTPConnection(at.others, 2379, timeout=_SECONDS)
    with closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200


def _apiserver_serves(plan: Plan, at: At) -> bool:
    """Whether it is ready. Then its keys are opened to all, as AKS has them at a public address."""
    if _status(plan, at, "GET", "/readyz") != 200:
        return False
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "sandbox-issuer-discovery"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _DISCOVERY},
        "subjects": [{"kind": "Group", "apiGroup": group, "name": "system:unauthenticated"}],
    }
    wanted = [(_RBAC, binding)]
    if plan.real_nodes:
        from podidentity_sandbox.kubernetes import nodes

        wanted += nodes.objects(plan)
    return all(_status(plan, at, "POST", path, each) in (201, 409) for path, each in wanted)


def _manager_serves(plan: Plan, at: At) -> bool:
    """Whether it has made what each pod and each node need."""
    found = (
        "/api/v1/namespaces/default/serviceaccounts/default",
        "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt",
        "/api/v1/namespaces/kube-node-lease",
    )
    return all(_status(plan, at, "GET", path) == 200 for path in found)


def _scheduler_serves(_: Plan, at: At) -> bool:
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # it signs for itself
    connection = HTTPSConnection(at.others, SCHEDULER_PORT, timeout=_SECONDS, context=trust)
    with closing(connection):
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200


def _status(plan: Plan, at: At, method: str, path: str, body: dict[str, Any] | None = None) -> int:
    trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
    connection = HTTPSConnection(at.apiserver, at.port, timeout=_SECONDS, context=trust)
    headers = {"Authorization": f"Bearer {plan.admin_token}", "Content-Type": "application/json"}
    with closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection.getresponse().status


_SERVES: dict[str, Callable[[Plan, At], bool]] = {
    "etcd": _etcd_serves,
    "kube-apiserver": _apiserver_serves,
    "kube-controller-manager": _manager_serves,
    "kube-scheduler": _scheduler_serves,
}
