"""A sandbox with pod identity enabled and one bound pod, for what the story does not tell."""

from __future__ import annotations

import asyncio
import http
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from podidentity.core.decision import Use, permission_names
from podidentity.core.resources import AzureIdentity, ObjectRef
from podidentity.wire.manifests import parse_identity
from podidentity.wire.reviews import review
from podidentity_sandbox.azure.client import AzureError, AzureOperator
from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.node.client import ExecResult, execute
from podidentity_sandbox.plan import Network, Plan
from podidentity_sandbox.weather import CALM, Weather, named, read, seed_of, write
from podidentity_sandbox.world.api import Api, ApiError, Object
from podidentity_sandbox.world.apply import Applier, Kinds, documents
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.environment import environment
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.inspection import status
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.acceptance import loaded
from tests.acceptance.deployer import folder_of_deployer
from tests.kubernetes.conftest import KUBERNETES
from tests.kubernetes.judge import BROUGHT_BY, WANTING
from tests.sandboxes import own

WEATHER = named(
    os.environ.get("PODIDENTITY_TEST_WEATHER", "real"),
    seed=seed_of(os.environ.get("PODIDENTITY_TEST_WEATHER_SEED", "2")),
)
"""That of every sandbox of these tests that does not say CALM, and why."""
_LIGHT = os.environ.get("PODIDENTITY_TEST_CONTROL_PLANE") == "light"
CONTROL_PLANE = str(KUBERNETES) if KUBERNETES.is_dir() and not _LIGHT else ""
"""Folder of the programs of a real control plane; "" where none is here, or `./scripts/test
--light` leaves it out, and the sandbox's own serves."""
needs_control_plane = pytest.mark.skipif(not CONTROL_PLANE, reason=f"{WANTING}: {BROUGHT_BY}")
"""Of what the sandbox's own control plane does not have."""
CHOSEN = ["--kubernetes", CONTROL_PLANE] if CONTROL_PLANE else []
"""Words by which `podidentity sandbox` takes it."""
TIMEOUT = 900
"""Seconds of a test and the sandbox that it brings up: in real weather each change of the machines
takes up to a minute, and on a busy machine each command several seconds."""
UP: dict[str, Path] = {}
"""The folders of the sandboxes that are up, by their names: a failure tells their weather."""
AGENTS = ("serve", "net", "mic", "nmi", "probe")
"""Containers of podidentity, whose last words are shown with a failure."""
MOST_SAID = 80
"""Lines of each."""
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_GIVEN_UP = ("OperationPreempted", "InternalExecutionError")

ASK = (
    "curl -s -m {seconds} -w '\\n%{{http_code}}' -H Metadata:true -H 'X-Nonce: {nonce}'"
    " 'http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource={resource}'"
)
PATIENCE = 300
"""Seconds of what must come to pass: only a test that fails uses them up."""
ANSWERED, CLOSED = 60, 1
"""Seconds that a request has where an answer must come, and where none may: what it came to is told
by IMDS, too."""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: default, labels: {aadpodidbinding: bound}}
spec: {containers: [{name: main, image: idle}]}
"""


class Sandbox:
    """One sandbox, and the deployer who runs podidentity in it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.api = Api(plan)
        self._deployer = folder_of_deployer(plan)

    def run(self, *command: str, given: str = "") -> str:
        """Run a command; return what it printed.

        `podidentity` acts as the deployer, kubectl and `podidentity sandbox` as the operator.
        """
        surroundings = {**os.environ, **environment(self.plan, os.environ["PATH"])}
        if command[:2] == ("podidentity", "sandbox"):
            command = (*loaded.command(), *command[1:])
        elif command[0] != "kubectl":
            surroundings["PATH"] = f"{self._deployer}:{surroundings['PATH']}"
        done = subprocess.run(
            command, input=given, check=False, capture_output=True, text=True, env=surroundings
        )
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    def apply(self, *objects: str, namespace: str = "default", seconds: float | None = 60) -> None:
        """Create objects, or change them, and wait for their pods; without `seconds` do not wait.

        What `podidentity sandbox apply --wait` does, in this process: to start that a hundred times
        takes twenty seconds of a processor.
        """
        applier = Applier(self.api, namespace)
        for each in documents("\n---\n".join(objects)):
            applier.apply(each)
        if seconds is not None:
            applier.wait_for_pods(seconds)

    async def bind(self, *flags: str) -> None:
        """Enable pod identity with these flags of NMI, and add an identity."""
        given = [f"--nmi-arg={flag}" for flag in flags]
        await self.bind_by("podidentity", "enable", "--forget=nmi-arg", *given)

    async def bind_by(self, *command: str) -> str:
        """Enable pod identity by this command, add an identity, and return its id."""
        made = await prepare(self.plan)
        self.run(*command)
        self.add("default", "bound", "--identity-resource-id", made.identity_id)
        return made.identity_id

    def add(self, namespace: str, name: str, *words: str) -> None:
        """Add an identity; return when the API server counts what `add` grants.

        Real ones take a moment, and NMI remembers a refusal for some seconds.
        """
        self.run("podidentity", "add", "--namespace", namespace, "--name", name, *words)
        path = f"/apis/aadpodidentity.k8s.io/v1/namespaces/{namespace}/azureidentities/{name}"
        found = parse_identity(json.dumps(self.api.request("GET", path)).encode())
        assert isinstance(found, AzureIdentity), found
        self.until_granted(namespace, *permission_names(found))

    def until_granted(self, namespace: str, *names: str, account: str = "default") -> None:
        """Return when the API server counts what was granted to a service account."""
        for each in names:
            asked = review(Use(ObjectRef(namespace, account), each.lower()))
            while not self.api.request("POST", REVIEWS, asked)["status"]["allowed"]:
                time.sleep(0.05)

    def until_admitted(self, manifest: Object) -> None:
        """Return when the API server would make an object: that a policy is gone counts later."""
        kind = Kinds(self.api).of_manifest(manifest["apiVersion"], manifest["kind"])
        path = f"{kind.path(manifest['metadata'].get('namespace'))}?dryRun=All"
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            with suppress(ApiError):
                self.api.request("POST", path, manifest)
                return
            time.sleep(0.05)
        pytest.fail(f"the API server still refuses {manifest}")

    def start_pod(self) -> None:
        """Start the pod and wait until it is ready."""
        self.apply(POD)

    async def execute(
        self, namespace: str, pod: str, command: Sequence[str], seconds: float
    ) -> ExecResult:
        """Run a command in a pod."""
        return await execute(self.plan, namespace, pod, command, timeout=seconds)

    async def shell(
        self,
        command: str,
        seconds: float = PATIENCE,
        *,
        pod: str = "app",
        namespace: str = "default",
    ) -> ExecResult:
        """Run a shell command in a pod."""
        return await self.execute(namespace, pod, ["sh", "-c", command], seconds)

    async def ask(
        self,
        *,
        nonce: str = "n",
        resource: str = "https://vault.azure.net",
        seconds: int = ANSWERED,
        pod: str = "app",
        namespace: str = "default",
    ) -> tuple[int, dict[str, Any], float]:
        """Ask for a token in the pod; return status, body and seconds taken."""
        began = time.monotonic()
        command = ASK.format(seconds=seconds, nonce=nonce, resource=resource)
        ran = await self.shell(command, pod=pod, namespace=namespace)
        said = ran.stdout.decode()
        body, _, status = said.rpartition("\n")
        return int(status), json.loads(body or "{}"), time.monotonic() - began

    def on_node(self, *command: str, given: str = "", number: int = 0) -> str:
        """Run a program in a node's network; return what it printed."""
        enter = ["nsenter", "--target", str(self.node_process(number)), "--net", "--mount", "--"]
        ran = subprocess.run(
            [*enter, *command], input=given, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def node_process(self, number: int = 0) -> int:
        """Return the process id of a node's kubelet on this machine."""
        found = status(Folder(self.plan.name, self.plan.path.parent))
        node = self.plan.nodes[number].name
        pid: int = next(part["pid"] for part in found.parts if part["name"] == node)
        return pid

    def nmi(self) -> int:
        """Return the process id of NMI's `serve` on this machine, the first of its container."""
        return self.processes("serve")[0]

    @contextmanager
    def stopped(self, program: str) -> Iterator[None]:
        """Have all processes of a program stand still."""
        held = self.processes(program)
        for each in held:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in held:
                os.kill(each, signal.SIGCONT)

    def processes(self, program: str) -> list[int]:
        """Return the processes of `serve` or `net`, each after the one that started it."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                cgroup = (entry / "cgroup").read_text()
                # In ticks since the machine began, proc_pid_stat(5): pids begin anew at some time.
                started = int((entry / "stat").read_text().rpartition(")")[2].split()[19])
            except OSError:
                continue  # it has ended meanwhile
            if program.encode() in argv and f"/{Path(self.plan.cgroup_root).name}/" in cgroup:
                found.append((started, int(entry.name)))
        assert found, f"{program} does not run"
        return [pid for _, pid in sorted(found)]

    async def nmi_ready(self) -> None:
        """Return when the DaemonSet is complete; it is watched."""
        await asyncio.to_thread(self.run, "podidentity", "enable")

    def readiness(self, number: int = 0) -> dict[str, Any]:
        """Return what NMI of a node says at `/readyz`, once somebody listens there."""
        ask = "until curl -s http://127.0.0.1:8085/readyz; do sleep 0.1; done"
        said = self.on_node("timeout", str(PATIENCE), "sh", "-c", ask, number=number)
        found: dict[str, Any] = json.loads(said)
        return found

    def check(self, *flags: str) -> list[dict[str, str]]:
        """Return what `podidentity check` finds; it ends with 1 where that is something."""
        check = shlex.join(("podidentity", "check", "-o", "json", *flags))
        found: list[dict[str, str]] = json.loads(self.run("sh", "-c", f"{check} || [ $? = 1 ]"))
        return found


def said_by_agents(folder: Path, since: float) -> str:
    """Return the end of each log of podidentity's containers that was written to since then.

    `since` is in seconds since the epoch. Lines about tokens that were given are left out.
    """
    told = []
    for name in AGENTS:
        for path in sorted(folder.glob(f"nodes/*/*/{name}/*.log")):
            if path.stat().st_mtime < since:
                continue
            lines = path.read_text(errors="replace").splitlines()
            kept = [each for each in lines if "token given" not in each][-MOST_SAID:]
            told.append("\n".join([f"== {path.relative_to(folder / 'nodes')}", *kept]))
    return "\n".join(told)


async def leaked(azure: AzureOperator, nonce: str) -> int:
    """Return how many requests with this nonce IMDS has seen: NMI never passes it on."""
    return sum(each["headers"].get("x-nonce") == nonce for each in await azure.imds_requests())


async def change_machines(azure: AzureOperator, path: str, body: Any) -> Any:
    """Change a scale set as an operator does: again where Azure gives it up or lets it fail."""
    async with asyncio.timeout(TIMEOUT / 3):
        while True:
            try:
                return await azure.arm("PATCH", path, body)
            except AzureError as error:
                passes = error.status == http.HTTPStatus.CONFLICT
                if not passes and not any(each in str(error) for each in _GIVEN_UP):
                    raise
            await asyncio.sleep(1)


@asynccontextmanager
async def one_node(
    name: str, network: Network = Network.ROUTED, *, weather: Weather = WEATHER
) -> AsyncIterator[Sandbox]:
    """Bring a sandbox of one node up, and take it down afterwards."""
    with _sandbox(own(name), network, weather) as place:
        yield place


@contextmanager
def opened(
    name: str,
    network: Network = Network.ROUTED,
    *,
    nodes: int = 1,
    init_taints: str = "",
    weather: Weather = WEATHER,
) -> Iterator[tuple[Sandbox, AzureOperator, asyncio.Runner]]:
    """Bring a sandbox up, for a whole module of tests that are not asynchronous.

    The operator of its Azure is asked by way of the loop.
    """
    how = _sandbox(
        name,
        network,
        weather,
        nodes=nodes,
        init_taints=init_taints,
    )
    with asyncio.Runner() as loop, how as place:
        azure = AzureOperator(place.plan)
        loop.run(azure.__aenter__())
        try:
            yield place, azure, loop
        finally:
            loop.run(azure.__aexit__())


@contextmanager
def _sandbox(
    name: str,
    network: Network,
    weather: Weather,
    *,
    nodes: int = 1,
    init_taints: str = "",
) -> Iterator[Sandbox]:
    """Bring a sandbox up in calm weather; it turns when the deployer has its rights."""
    shape = Shape(
        nodes=nodes,
        network=network,
        init_taints=init_taints,
        kubernetes=CONTROL_PLANE,
    )
    began = time.time()
    plan = bring_up(name, shape, weather=CALM, bound=True)
    UP[name] = plan.path
    try:
        place = Sandbox(plan)
        write(plan.path, weather)
        yield place
    except BaseException as error:
        error.add_note(f"{name}: {read(plan.path)}")
        error.add_note(said_by_agents(plan.path, began))
        raise
    finally:
        del UP[name]
        bring_down(name)
