"""One real control plane for all tests of a worker: etcd, Kubernetes' programs and the proxy.

It has an address of the loopback to itself, and is put back between tests by etcd's keys. All that
a test made goes so at once, as if it had never been; then what is left to wait for is that each
program has seen it, which they show by what they do with objects that are made after it.
"""

from __future__ import annotations

import atexit
import base64
import functools
import http.client
import itertools
import json
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from podidentity_sandbox.kubernetes.main import program_serves
from podidentity_sandbox.kubernetes.programs import GO, PROGRAMS, At, command, write_files
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import CALM, FILE, write
from podidentity_sandbox.world.authority import write_certificates
from podidentity_sandbox.world.blueprint import Shape, draw_plan
from tests.kubernetes.programs import OLDEST, place

NEWEST_FOLDER, OLDEST_FOLDER = "kubernetes", f"kubernetes-1.{OLDEST}"
_LONG = 60.0
"""Seconds that only a failing test waits."""
_MORE: Mapping[str, Sequence[str]] = {
    "kube-apiserver": (
        "--audit-policy-file=",
        "--audit-log-path=",
        # etcd keeps what changed since all was put back last, however long ago.
        "--etcd-compaction-interval=0",
    ),
    "kube-controller-manager": (
        # No kubelet renews a lease: tests say which nodes are ready.
        "--controllers=*,-node-lifecycle-controller,-node-ipam-controller",
        # One after the other, so that an object made later is judged later.
        "--concurrent-daemonset-syncs=1",
        "--concurrent-deployment-syncs=1",
        "--concurrent-replicaset-syncs=1",
    ),
}
_OF_THE_PROGRAMS = (
    "/registry/leases/kube-system/apiserver-",
    "/registry/masterleases/",
    "/registry/ranges/",
)
"""Keys that change by themselves, and are no test's."""
_SEEN = "seen-by-all-"
"""How names begin of objects by which programs show that they have seen what was before them."""
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_WORKLOADS = "/apis/apps/v1/namespaces/default"
_CRDS = "/registry/apiextensions.k8s.io/customresourcedefinitions/"


class Server:
    """The API server as its administrator has it, on one connection of the standard library's.

    A request takes a third of what it takes httpx2's client, and there are ten thousands of them.
    """

    def __init__(self, plan: Plan, address: str, port: int) -> None:
        tls = ssl.create_default_context(cafile=str(plan.ca_certificate))
        self._connection = http.client.HTTPSConnection(address, port, timeout=_LONG, context=tls)
        self._token = plan.admin_token
        self._one = threading.Lock()

    def ask(
        self, method: str, path: str, params: Mapping[str, str], body: object, kind: str
    ) -> tuple[int, str]:
        """Return the status and the body of an answer."""
        query = f"?{urlencode(params)}" if params else ""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        sent = None if body is None else json.dumps(body)
        with self._one:
            known = self._connection.sock
            if known is not None and select.select([known], [], [], 0)[0]:
                self._connection.close()  # so has the server, to which nothing was sent meanwhile
            self._connection.request(method, f"{path}{query}", sent, headers)
            with self._connection.getresponse() as answer:
                return answer.status, answer.read().decode()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class State:
    """All keys of etcd at one moment."""

    values: Mapping[str, str]
    """As etcd's gateway has them: base64."""
    revisions: dict[str, str]
    """In which each of them got its value last."""


class ControlPlane:
    """A control plane that serves, and what puts it back."""

    def __init__(self, plan: Plan, at: At) -> None:
        self.plan = plan
        self._at = at
        self._etcd = http.client.HTTPConnection(at.others, 2379, timeout=_LONG)
        self._server = Server(plan, at.apiserver, at.port)
        self._numbers = itertools.count()
        self.calm = plan.path / "calm"
        """A folder without weather."""
        self.calm.mkdir()
        self.under(self.calm)
        wait_until(self._begun)
        self._revision = 0
        """Of etcd, when all was put back last."""
        self.beginning = self.state()

    def _begun(self) -> bool:
        """Whether the controllers have made what each cluster begins with."""
        roles = self.ask("GET", f"{_RBAC}/clusterroles")["items"]
        namespaces = self.ask("GET", "/api/v1/namespaces")["items"]
        wanted = [
            f"/api/v1/namespaces/{each['metadata']['name']}/{kind}"
            for each in namespaces
            for kind in ("serviceaccounts/default", "configmaps/kube-root-ca.crt")
        ]
        return all(each["rules"] for each in roles if "aggregationRule" in each) and all(
            self.answer("GET", path)[0] == 200 for path in wanted
        )

    def lend(self, plan: Plan) -> None:
        """Let a sandbox's plan be of this control plane: the same certificates."""
        files = ("ca.crt", "bundle.pem")
        pairs = ("apiserver", "azure", "masterclient", "kubelet-client", "front-proxy")
        for name in (*files, *(f"{pair}.{end}" for pair in pairs for end in ("crt", "key"))):
            shutil.copy(self.plan.path / name, plan.path / name)

    def under(self, folder: Path) -> None:
        """Let the weather of this folder befall requests."""
        if not (folder / FILE).exists():
            write(folder, CALM)
        new = self.plan.path / f"{FILE}.link"
        new.symlink_to(folder / FILE)
        new.replace(self.plan.path / FILE)

    def state(self) -> State:
        """Return what is there."""
        found = self._range(keys_only=False)
        values = {key: each.get("value", "") for key, each in found.items()}
        return State(values, {key: each["mod_revision"] for key, each in found.items()})

    def put_back(self, state: State) -> None:
        """Let all be as it was; return when the programs have seen it."""
        seen: set[str] = set()
        # What a test itself put back, no program needs to have seen either.
        differing, touched = self._differing(state), self._touched()
        while differing or touched:
            self._write(state, differing)
            if fresh := {key for key in (differing | touched) - seen if _SEEN not in key}:
                seen |= fresh
                self._wait_for_all_to_see(state, fresh)
            differing, touched = self._differing(state), set()
        self._revision = self._now()

    def _now(self) -> int:
        asked = {"key": _coded("/registry/"), "count_only": True}
        return int(self._ask_etcd("range", asked)["header"]["revision"])

    def _touched(self) -> set[str]:
        """Return the keys that were written or deleted since all was put back last."""
        now, keys = self._now(), set[str]()
        if now == self._revision or not self._revision:
            return keys
        every = _coded("\0")
        start = {"key": every, "range_end": every, "start_revision": self._revision + 1}
        with closing(http.client.HTTPConnection(self._at.others, 2379, timeout=_LONG)) as watching:
            watching.request("POST", "/v3/watch", json.dumps({"create_request": start}))
            for line in watching.getresponse():
                told = json.loads(line)["result"]
                assert not told.get("canceled"), told
                found = [each["kv"] for each in told.get("events", ())]
                keys |= {base64.b64decode(each["key"]).decode() for each in found}
                if any(int(each["mod_revision"]) >= now for each in found):
                    break
        return {key for key in keys if key.startswith("/registry/")}

    def _differing(self, state: State) -> set[str]:
        now = {key: each["mod_revision"] for key, each in self._range(keys_only=True).items()}
        return {key for key, _ in now.items() ^ state.revisions.items()}

    def _write(self, state: State, keys: Collection[str]) -> None:
        """Give these keys the values of the state, or delete them, those of owners first."""
        ordered = sorted(keys, key=_owners_first)
        for start in range(0, len(ordered), 100):  # etcd takes 128 steps at once
            wanted = [(key, state.values.get(key)) for key in ordered[start : start + 100]]
            steps = [
                {"request_delete_range": {"key": _coded(key)}}
                if value is None
                else {"request_put": {"key": _coded(key), "value": value}}
                for key, value in wanted
            ]
            answer = self._ask_etcd("txn", {"success": steps})
            for key, value in wanted:
                if value is not None:
                    state.revisions[key] = answer["header"]["revision"]

    def _range(self, *, keys_only: bool) -> dict[str, Any]:
        asked = {"key": _coded("/registry/"), "range_end": _coded("/registry0")}
        found = self._ask_etcd("range", {**asked, "keys_only": keys_only}).get("kvs", [])
        named = ((base64.b64decode(each["key"]).decode(), each) for each in found)
        return {key: each for key, each in named if not key.startswith(_OF_THE_PROGRAMS)}

    def _ask_etcd(self, what: str, body: object) -> Any:
        self._etcd.request("POST", f"/v3/kv/{what}", json.dumps(body))
        with self._etcd.getresponse() as answer:
            assert answer.status == 200, answer.read()
            return json.load(answer)

    def _wait_for_all_to_see(self, state: State, keys: Collection[str]) -> None:
        kinds = {key.removeprefix("/registry/").split("/")[0] for key in keys}
        if kinds & {"validatingadmissionpolicies", "validatingadmissionpolicybindings"}:
            with self.policies_seen():  # they might refuse what is made for the others
                pass
        with ExitStack() as waits:
            # All are made first, and then waited for.
            if kinds & {"daemonsets", "deployments", "replicasets"}:
                waits.enter_context(self._controllers_see())
            if kinds & {"roles", "rolebindings", "clusterroles", "clusterrolebindings"}:
                waits.enter_context(self.rights_seen())
            if changed := [key for key in keys if key.startswith(_CRDS)]:
                waits.callback(self._until_seen, state, changed)

    @contextmanager
    def _controllers_see(self) -> Iterator[None]:
        """Make a DaemonSet for no node and a Deployment of no pod: they are judged in turn."""
        name = self._name()
        labels = {"app": name}
        template = {
            "metadata": {"labels": labels},
            "spec": {"nodeSelector": labels, "containers": [{"name": "c", "image": "none"}]},
        }
        spec = {"selector": {"matchLabels": labels}, "template": template}
        metadata = {"name": name}
        self.ask("POST", f"{_WORKLOADS}/daemonsets", {"metadata": metadata, "spec": spec})
        scaled = {"metadata": metadata, "spec": {**spec, "replicas": 0}}
        self.ask("POST", f"{_WORKLOADS}/deployments", scaled)
        yield

        def judged() -> bool:
            lists = [
                self.ask("GET", f"{_WORKLOADS}/{kind}?labelSelector=")["items"]
                for kind in ("daemonsets", "deployments", "replicasets")
            ]
            ours = [
                [each for each in found if each["metadata"]["name"].startswith(name)]
                for found in lists
            ]
            return all(
                found and all("observedGeneration" in each["status"] for each in found)
                for found in ours
            )

        wait_until(judged)

    @contextmanager
    def rights_seen(self) -> Iterator[None]:
        """Give somebody a right in the cluster and another one in a namespace.

        Then the roles and bindings that were made, changed or deleted before it count as such.
        """
        name = self._name()
        subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}
        for kind, where in (("ClusterRole", ""), ("Role", "/namespaces/default")):
            path = f"{_RBAC}{where}/{kind.lower()}"
            rule = {"apiGroups": [name], "resources": [kind.lower()], "verbs": ["get"]}
            self.ask("POST", f"{path}s", {"metadata": {"name": name}, "rules": [rule]})
            reference = {"apiGroup": subject["apiGroup"], "kind": kind, "name": name}
            made = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
            self.ask("POST", f"{path}bindings", made)
        yield

        def allowed() -> bool:
            for kind in ("clusterrole", "role"):
                asked = {"group": name, "resource": kind, "verb": "get", "namespace": "default"}
                review = {"spec": {"user": name, "resourceAttributes": asked}}
                if not self.ask("POST", _REVIEWS, review)["status"]["allowed"]:
                    return False
            return True

        wait_until(allowed)

    @contextmanager
    def policies_seen(self) -> Iterator[None]:
        """Make a policy that refuses one object, and wait until it does: up to a second.

        Then the policies and bindings that were made, changed or deleted before it count as such.
        """
        name = self._name()
        rule = {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["configmaps"],
            "resourceNames": [name],
        }
        spec = {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false"}],
        }
        bound = {"policyName": name, "validationActions": ["Deny"]}
        for kind, of in (("policies", spec), ("policybindings", bound)):
            path = f"{_ADMISSION}/validatingadmission{kind}"
            self.ask("POST", path, {"metadata": {"name": name}, "spec": of})
        yield
        path = "/api/v1/namespaces/default/configmaps?dryRun=All"
        wait_until(lambda: self.answer("POST", path, {"metadata": {"name": name}})[0] == 422)

    def _until_seen(self, state: State, keys: Collection[str]) -> None:
        """Return when the kinds of these definitions are served as the state has it."""
        for key in keys:
            plural, _, group = key.removeprefix(_CRDS).partition(".")
            if value := state.values.get(key):
                version = json.loads(base64.b64decode(value))["spec"]["versions"][0]["name"]
                self.wait_until_served(group, {plural}, version=version)
            elif not any(each.endswith(f".{group}") for each in state.values):
                wait_until(partial(self._lacks, f"/apis/{group}"))

    def _lacks(self, path: str) -> bool:
        return self.answer("GET", path)[0] == 404

    def wait_until_served(
        self, group: str, plurals: Collection[str], *, version: str = "v1"
    ) -> None:
        """Return when each of these kinds is served, and discovery names it."""
        path = f"/apis/{group}/{version}"

        def seen() -> bool:
            named = {each["name"] for each in self.answer("GET", path)[1].get("resources", [])}
            codes = {self.answer("GET", f"{path}/{plural}")[0] for plural in plurals}
            return codes == {200} and named >= {*plurals}

        wait_until(seen)

    def _name(self) -> str:
        return f"{_SEEN}{next(self._numbers)}"

    def answer(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the API server itself as its administrator; return its status and its answer."""
        status, text = self._server.ask(method, path, {}, body, "application/json")
        return status, json.loads(text) if text.startswith("{") else {}

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """As `answer`, for what must succeed."""
        status, found = self.answer(method, path, body)
        assert status // 100 == 2, found
        return found


def wait_until(holds: Callable[[], bool]) -> None:
    """Return when something holds that programs are about to bring about."""
    end, pause = time.monotonic() + _LONG, 0.005
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.1)


def _coded(key: str) -> str:
    return base64.b64encode(key.encode()).decode()


def _owners_first(key: str) -> tuple[bool, str]:
    return not key.startswith(("/registry/daemonsets", "/registry/deployments")), key


@functools.cache
def control_plane(folder: str) -> ControlPlane:
    """Return this worker's control plane of these programs; skip the test where they are not."""
    programs = place() / folder
    if not programs.is_dir():
        pytest.skip("no real Kubernetes is here: ./scripts/setup-kubernetes")
    # Neither another worker nor another program has this address.
    number = (os.getpid() * 2 + (folder == OLDEST_FOLDER)) % (1 << 23)
    at = At.on(str(IPv4Address("127.128.0.0") + number))
    path = Path(tempfile.mkdtemp(prefix="podidentity-control-plane-"))
    atexit.register(shutil.rmtree, path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        shape = Shape(rootless=True, kubernetes=str(programs))
        plan = draw_plan("cli", path, shape, apiserver_port=listener.getsockname()[1])
        nodes = (replace(each, name=f"node-{each.index}") for each in plan.nodes)
        plan = replace(plan, nodes=tuple(nodes))
        plan.save()
        write_certificates(plan, at.apiserver)
        write_files(plan, at)
        for name in PROGRAMS:
            words = [*command(plan, name, at), *_MORE.get(name, ())]
            process = _start(path / f"{name}.log", words)
            wait_until(partial(_serves, process, plan, name, at))
        _start_proxy(plan, listener, at)
    return ControlPlane(plan, at)


def _start_proxy(plan: Plan, listener: socket.socket, at: At) -> None:
    log, (reader, writer) = plan.path / "proxy.log", os.pipe()
    fds = {"listen-fd": listener.fileno(), "ready-fd": writer}
    options = [f"--folder={plan.path}", *(f"--{name}={fd}" for name, fd in fds.items())]
    words = [sys.executable, "-m", "podidentity_sandbox.kubernetes", "proxy", f"--at={at.others}"]
    _start(log, [*words, *options], fds.values())
    os.close(writer)
    with os.fdopen(reader, "rb") as ready:
        assert ready.read() == b"ready\n", log.read_text()


def _serves(process: subprocess.Popen[bytes], plan: Plan, program: str, at: At) -> bool:
    assert process.poll() is None, (plan.path / f"{program}.log").read_text()
    try:
        return program_serves(plan, program, at)
    except (OSError, http.client.HTTPException):
        return False


def _start(log: Path, words: Sequence[str], fds: Collection[int] = ()) -> subprocess.Popen[bytes]:
    """Start a program, which ends with this process, whatever ends that."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *words],
            pass_fds=tuple(fds),
            env={**os.environ, **GO},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    atexit.register(process.wait)
    atexit.register(process.kill)
    return process
