"""Ctrl-C at each step of a command: it ends, says how things stand, and what it names does so.

The signal is real, and so is the process. A held request says at which step it comes.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.cli.azure import Identity
from tests.cli.binding import Run, binding, identity
from tests.cli.conftest import DAEMON_SET, end_nmi
from tests.cli.holding import Holding, Step, holding
from tests.cli.test_adopt import LEDGERS, a_record, an_identity, grant, take_grant
from tests.cli.test_grants import may
from tests.cli.test_migrate import bound, refused, there
from tests.cli.world import CUSTOM, World

NOTHING = "Nothing was changed.\n"
BACK = " To take all of it back:\n"


@pytest.fixture(scope="module")
def gate(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Holding]:
    with holding(shared_world, tmp_path_factory.mktemp("gate")) as server:
        yield server


@pytest.fixture
def client() -> str:
    return str(uuid.uuid4())


def adding(ns: str, client: str) -> list[str]:
    named = ["--namespace", ns, "--name", "orders"]
    return ["add", *named, "--client-id", client, "--tenant-id", "contoso.com", "--secret", "mail"]


def again(command: str) -> str:
    return f"{command} did not finish. Run it again: it goes on."


def perhaps(words: str) -> str:
    return f"Perhaps done, for nobody waited for the answer: {words}\n"


def taken_back(err: str, run: Run) -> None:
    """Run the commands that an interrupted one names to take all of it back."""
    (*_, lines) = err.partition(BACK)
    commands = [shlex.split(line) for line in lines.splitlines() if line.startswith("  ")]
    assert commands, err
    for program, *words in commands:
        if program == "kubectl":
            subprocess.run([program, *words], check=True, capture_output=True)
        else:
            yes = ["--yes"] if words == ["migrate", "rollback"] else []
            assert run(*words, *yes).code == 0


ROLE = "create clusterroles.rbac.authorization.k8s.io"
UNUSED = "  kubectl delete clusterrole podidentity-use-{client} --ignore-not-found\n"
DELETE = "  podidentity delete --namespace {ns} --name orders\n"
STEPS_OF_ADD = [
    (Step("GET", "/api/v1/namespaces/"), NOTHING),
    (
        Step("POST", "/clusterroles", done=True),
        perhaps(f"{ROLE} podidentity-use-{{client}}") + again("add") + BACK + UNUSED,
    ),
    (
        Step("POST", "/azureidentities"),
        perhaps("create azureidentities.aadpodidentity.k8s.io orders in namespace {ns}")
        + again("add")
        + BACK
        + DELETE
        + UNUSED,
    ),
    (Step("GET", "/clusterrolebindings/"), again("add") + BACK + DELETE),
    (
        Step("POST", "/clusterrolebindings", done=True),
        perhaps(
            "create clusterrolebindings.rbac.authorization.k8s.io podidentity-use-{client}:{ns}"
        )
        + again("add")
        + BACK
        + DELETE,
    ),
]


@pytest.mark.parametrize(("step", "said"), STEPS_OF_ADD, ids=str)
def test_an_add_that_is_interrupted_names_what_takes_all_of_it_back(  # noqa: PLR0917 - pytest's
    world: World, ns: str, gate: Holding, client: str, podidentity: Run, step: Step, said: str
) -> None:
    ran = gate.interrupted(step, *adding(ns, client))
    assert (ran.code, ran.err) == (130, said.format(ns=ns, client=client) + "\ninterrupted\n")
    if said != NOTHING:
        taken_back(ran.err, podidentity)
    assert there(world, client) == set()
    assert identity(world, ns) is None
    assert binding(world, ns) is None


def test_an_add_that_is_interrupted_again_and_again_goes_on_to_its_end(
    world: World, ns: str, gate: Holding, client: str, podidentity: Run
) -> None:
    for path in ("/clusterroles", "/azureidentitybindings"):
        ran = gate.interrupted(Step("POST", path, done=True), *adding(ns, client))
        assert (ran.code, again("add") in ran.err) == (130, True), ran.err
        assert not may(world, ns, "web", client)
    assert podidentity(*adding(ns, client)).code == 0
    assert may(world, ns, "web", client)


def test_an_add_that_waits_for_azure_says_what_azure_was_asked_for(
    orders: Identity, ns: str, gate: Holding, podidentity: Run, world: World
) -> None:
    orders.weather("arm=[{effect: hang, kind: PATCH *}]")
    words = ["add", "--namespace", ns, "--name", "orders", "--identity-resource-id", orders.id]
    ran = gate.interrupted_when("attaching to scale set", *words)
    said = perhaps(f"attach {orders.name} to scale set {world.plan.scale_set}")
    assert (ran.code, ran.err) == (
        130,
        f"{said}{again('add')}{BACK}{DELETE.format(ns=ns)}\ninterrupted\n",
    )
    orders.weather()
    taken_back(ran.err, podidentity)
    assert identity(world, ns) is None
    assert not orders.attached()


def test_an_add_that_has_attached_and_not_granted_yet_is_taken_back_whole(
    orders: Identity, ns: str, gate: Holding, podidentity: Run, world: World
) -> None:
    words = ["add", "--namespace", ns, "--name", "orders", "--identity-resource-id", orders.id]
    ran = gate.interrupted(Step("GET", "/clusterrolebindings/"), *words)
    assert (ran.code, orders.attached()) == (130, True), ran.err
    taken_back(ran.err, podidentity)
    assert not orders.attached()
    assert identity(world, ns) is None
    assert there(world, orders.client_id) == set()


def test_a_deletion_that_is_interrupted_again_and_again_goes_on_to_its_end(
    world: World, ns: str, gate: Holding, client: str, podidentity: Run
) -> None:
    assert podidentity(*adding(ns, client)).code == 0
    words = ("delete", "--namespace", ns, "--name", "orders")
    for path in ("/azureidentitybindings/", "/clusterrolebindings/", "/azureidentities/"):
        ran = gate.interrupted(Step("DELETE", path, done=True), *words)
        assert (ran.code, ran.err.count(again("delete"))) == (130, 1), ran.err
        assert "Perhaps done, for nobody waited for the answer: delete " in ran.err
    assert podidentity(*words).code == 0
    assert there(world, client) == set()
    assert identity(world, ns) is None


def test_an_enable_and_a_disable_that_are_interrupted_go_on_and_say_when_all_is_done(
    world: World, gate: Holding, podidentity: Run
) -> None:
    ran = gate.interrupted(Step("GET", "/version"), "enable")
    assert (ran.code, ran.err) == (130, f"{NOTHING}\ninterrupted\n")
    back = f"{again('enable')}{BACK}  podidentity disable\n\ninterrupted\n"
    for step in (
        Step("PATCH", "/customresourcedefinitions/"),
        Step("POST", "/daemonsets", done=True),
    ):
        ran = gate.interrupted(step, "enable")
        assert (ran.code, ran.err.endswith(back)) == (130, True), ran.err
        assert ran.err.startswith("Perhaps done, for nobody waited for the answer: "), step
    ran = gate.interrupted(Step("GET", "watch=1"), "enable")
    assert (ran.code, ran.err) == (
        130,
        "All of it is made, and comes up by itself: podidentity nodes says how far it is. To take "
        "it away: podidentity disable.\n\ninterrupted\n",
    )
    assert world.get(DAEMON_SET) is not None
    ran = gate.interrupted(Step("DELETE", "/daemonsets/", done=True), "disable")
    assert (ran.code, ran.err.endswith(f"{again('disable')}\n\ninterrupted\n")) == (130, True)
    ran = gate.interrupted(Step("GET", "watch=1"), "disable")
    assert ran.code == 130
    assert ran.err.startswith("All of it is deleted, and NMI's pods end by themselves. The nodes ")
    end_nmi(world)
    ran = podidentity("disable")
    assert (ran.code, " deleted" in ran.out) == (0, False), "nothing was left to be deleted"


def test_a_grant_a_revocation_and_a_migration_that_are_interrupted_go_on_or_are_taken_back(
    world: World, ns: str, gate: Holding, client: str, podidentity: Run
) -> None:
    permission = ("--namespace", ns, "--identity", client)
    ran = gate.interrupted(Step("POST", "/clusterroles", done=True), "grant", *permission)
    assert (ran.code, BACK in ran.err) == (130, True)
    taken_back(ran.err, podidentity)
    assert there(world, client) == set(), "nobody has the role, and it went"
    assert podidentity("grant", *permission).code == 0
    step = Step("DELETE", "/clusterrolebindings/", done=True)
    ran = gate.interrupted(step, "revoke", *permission)
    assert (ran.code, again("revoke") in ran.err) == (130, True)
    assert podidentity("revoke", *permission).code == 0
    assert there(world, client) == set()

    bound(world, ns, "orders", client)
    world.pod(ns, "web", {"aadpodidbinding": "orders"})
    step = Step("POST", "/clusterroles", done=True)
    ran = gate.interrupted(step, "migrate", "apply", "-n", ns, "--yes")
    assert (ran.code, again("migrate apply") in ran.err) == (130, True)
    taken_back(ran.err, podidentity)
    assert there(world, client) == set()
    assert podidentity("migrate", "apply", "-n", ns, "--yes").code == 0
    assert refused(podidentity, ns) == []
    ran = gate.interrupted_when("permissions back?", "migrate", "rollback")
    assert (ran.code, ran.err) == (130, f"{NOTHING}interrupted\n"), "at a question, too"
    step = Step("DELETE", "/clusterrolebindings/", done=True)
    ran = gate.interrupted(step, "migrate", "rollback", "--yes")
    assert (ran.code, again("migrate rollback") in ran.err) == (130, True)
    assert podidentity("migrate", "rollback", "--yes").code == 0
    assert there(world, client) == set()


ONE_CHANGE = [
    (Step("POST", "/configmaps", done=True), "mic pause --namespace {ns}", "create configmaps"),
    (Step("PATCH", "/configmaps/", done=True), "mic resume --namespace {ns}", "patch configmaps"),
    (
        Step("POST", "/azurepodidentityexceptions", done=True),
        "exception add {meter} --pod-labels app=meter",
        "create azurepodidentityexceptions",
    ),
    (
        Step("PATCH", "/azurepodidentityexceptions/"),
        "exception update {meter} --pod-labels app=other",
        "patch azurepodidentityexceptions",
    ),
    (
        Step("DELETE", "/azurepodidentityexceptions/", done=True),
        "exception delete {meter}",
        "delete azurepodidentityexceptions",
    ),
]
"""The commands that change one object, in an order in which each finds what it changes."""


def test_what_changes_one_object_names_it_where_it_is_interrupted_and_does_it_when_run_again(
    world: World, ns: str, gate: Holding, podidentity: Run
) -> None:
    pauses = f"/api/v1/namespaces/{ns}/configmaps/podidentity-mic-pauses"
    meter = f"{CUSTOM}/namespaces/{ns}/azurepodidentityexceptions/meter"
    seen = []
    for step, line, change in ONE_CHANGE:
        words = line.format(ns=ns, meter=f"--namespace {ns} --name meter").split()
        ran = gate.interrupted(step, *words)
        assert (ran.code, again(" ".join(words[:2])) in ran.err) == (130, True), ran.err
        assert f"Perhaps done, for nobody waited for the answer: {change}" in ran.err
        assert podidentity(*words).code == 0
        there = world.get(meter)
        seen.append((world.get(pauses)["data"], there and there["spec"]["podLabels"]))
    world.delete(pauses)
    paused, *resumed = (data for data, _ in seen)
    assert resumed == [resumed[0]] * 4
    assert paused != resumed[0]
    assert [labels for _, labels in seen] == [None, None, {"app": "meter"}, {"app": "other"}, None]


def test_an_adoption_that_is_interrupted_goes_on_and_writes_nothing_twice(
    world: World, ns: str, gate: Holding, podidentity: Run
) -> None:
    """Its question, and the ledger of each machine."""
    world.send("POST", f"{CUSTOM}/namespaces/{ns}/azureidentities", an_identity(ns))
    grant(world, ns)
    record = a_record(ns, world.plan.nodes[0].name)
    records = f"{CUSTOM}/namespaces/default/azureassignedidentities"
    world.send("POST", records, record)
    ran = gate.interrupted_when("when no pod needs them?", "migrate", "adopt")
    assert (ran.code, ran.err) == (130, f"{NOTHING}interrupted\n")
    step = Step("POST", "/azureidentityledgers", done=True)
    ran = gate.interrupted(step, "migrate", "adopt", "--yes")
    assert (ran.code, again("migrate adopt") in ran.err) == (130, True), ran.err
    assert perhaps("create azureidentityledgers.aadpodidentity.k8s.io")[:-1] in ran.err
    (written,) = world.send("GET", LEDGERS)["items"]
    done = podidentity("migrate", "adopt", "--yes")
    assert done.code == 0, done.err
    assert world.send("GET", LEDGERS)["items"] == [written]
    world.delete(LEDGERS)
    take_grant(world, ns)
    path = f"{records}/{record['metadata']['name']}"
    world.send("PATCH", path, {"metadata": {"finalizers": None}})
    world.delete(path)


def test_while_modules_are_loaded_an_interruption_is_no_traceback() -> None:
    script = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import builtins; real = builtins.__import__\n"
        "def hooked(name, *rest):\n"
        "    if name == 'podidentity.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "from podidentity.__main__ import main\n"
        "builtins.__import__ = hooked\n"
        "main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, "list"], check=False, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
