from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from podidentity import manifests
from podidentity.adapters.kube import Kube
from podidentity.cli import admission_policies
from podidentity.cli.agent_choices import chosen
from podidentity.cli.azure_access import ATTACHED_TO
from podidentity.cli.output import CommandError
from tests.cli.conftest import (
    DAEMON_SET,
    EXCEPTION,
    PODS,
    PROBE_SET,
    Ran,
    end_nmi,
    nmi_pods,
    settled_daemon_set,
)
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.world import CRDS, CUSTOM, World
from tests.kubernetes.control_plane import wait_until

Run = Callable[..., Ran]


def become(world: World, pod: Any, *, ready: bool, **status: Any) -> None:
    """Set a pod's status as its kubelet would."""
    condition = {"type": "Ready", "status": str(ready)}
    body = {"status": {"phase": "Running", "conditions": [condition], **status}}
    world.send("PATCH", f"{PODS}/{pod['metadata']['name']}/status", body)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "podidentity", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[str], line: str) -> list[str]:
    """Read the command's lines up to this one."""
    assert process.stdout is not None
    said = []
    for each in process.stdout:
        said.append(each.rstrip("\n"))
        if said[-1] == line:
            return said
    raise AssertionError((said, process.stderr and process.stderr.read()))


def test_enable_brings_everything_and_waits_for_every_node(bare: World) -> None:
    with running("enable") as process:
        said = until(process, "NMI is ready on 0 of 2 nodes")
        names = [each["metadata"]["name"] for each in manifests.crds()]
        for name in names:
            assert any(line.split("/")[1].split()[0] == name for line in said[:-1])
        assert "daemonset.apps/nmi created" in said
        first, second = nmi_pods(bare)
        become(bare, first, ready=True)
        until(process, "NMI is ready on 1 of 2 nodes")
        become(bare, second, ready=True)
        until(process, "NMI is ready on 2 of 2 nodes")
        assert process.wait(60) == 0


@pytest.mark.usefixtures("bare")
def test_enable_waits_until_the_api_server_serves_new_definitions(podidentity: Run) -> None:
    assert podidentity("disable", "--purge", "--yes").code == 0
    ran = podidentity("enable", "--no-wait")
    assert (ran.code, ran.err) == (0, "")
    assert "daemonset.apps/nmi created" in ran.out


def test_enable_may_be_repeated(bare: World, podidentity: Run) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    before = settled_daemon_set(bare)
    ran = podidentity("enable", "--no-wait")
    assert ran.code == 0
    assert {line.split()[-1] for line in ran.out.splitlines()} == {"unchanged"}
    ran = podidentity("enable", "--no-wait", "--image", "other:1")
    assert "daemonset.apps/nmi configured" in ran.out
    after = bare.get(DAEMON_SET)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    containers = after["spec"]["template"]["spec"]["containers"]
    assert {container["image"] for container in containers} == {"other:1"}
    podidentity("enable", "--no-wait", "--nmi-arg=--hold=0", "--nmi-arg", "--host-token=root")
    for container in bare.get(DAEMON_SET)["spec"]["template"]["spec"]["containers"]:
        assert container["args"][-2:] == ["--hold=0", "--host-token=root"]


def args_of(world: World) -> list[str]:
    found: list[str] = world.get(DAEMON_SET)["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def test_what_an_earlier_enable_was_told_stays_until_it_is_taken_back(
    bare: World, podidentity: Run
) -> None:
    told = ("--image=i:1", "--nmi-arg=--hold=0", "--nmi-arg=--ambiguous=reject")
    more = ("--startup-taint=example.com/wait", "--no-admission-policies", "--identity-type=0")
    assert podidentity("enable", "--no-wait", *told, *more).err == ""
    before = settled_daemon_set(bare)
    ran = podidentity("enable", "--no-wait")
    assert {line.split()[-1] for line in ran.out.splitlines()} == {"unchanged"}
    assert bare.get(DAEMON_SET) == before
    for each in (*told, *more):
        assert each in ran.err
    assert policies(bare) == set()

    ran = podidentity("enable", "--no-wait", "--nmi-arg=--hold=1", "--nmi-arg=--ambiguous-")
    assert (args_of(bare)[-1], "--ambiguous=reject" in args_of(bare)) == ("--hold=1", False)
    assert "--nmi-arg" not in ran.err
    assert "--image=i:1" in ran.err

    forgotten = ("--forget=startup-taint", "--forget=admission-policies", "--forget=image")
    ran = podidentity("enable", "--no-wait", *forgotten)
    assert ran.err.startswith("keeps --identity-type=0 --nmi-arg=--hold=1: ")
    assert bare.get(TAINT_ROLE) is None
    assert policies(bare)
    ran = podidentity("enable", "--no-wait", "--forget=all")
    plain = manifests.nmi()[-1]["spec"]["template"]["spec"]["containers"][0]
    assert [each for each in args_of(bare) if each != "--tokens-as=node"] == plain["args"]
    assert ran.err == ""


def test_flags_that_a_cluster_always_needs_come_from_the_environment_and_the_others_win(
    bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIDENTITY_NMI_ARGS", "--attestation=namespace --hold=1")
    ran = podidentity("enable", "--no-wait", "--nmi-arg=--hold=0")
    assert "flags of NMI: --attestation=namespace --hold=1" in ran.err
    for container in bare.get(DAEMON_SET)["spec"]["template"]["spec"]["containers"]:
        assert container["args"][-3:] == ["--attestation=namespace", "--hold=1", "--hold=0"]


def test_flags_in_the_environment_with_an_open_quote_are_wrong_usage(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIDENTITY_NMI_ARGS", "--x='a")
    ran = podidentity("enable", "--dry-run")
    assert ran.code == 2
    assert "PODIDENTITY_NMI_ARGS cannot be read: No closing quotation." in ran.err


def test_a_node_whose_nmi_does_not_come_up_is_named_with_the_reason(
    bare: World, podidentity: Run
) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    with running("enable", "--timeout", "300s") as process:
        until(process, "NMI is ready on 0 of 2 nodes")
        first, second = nmi_pods(bare)
        become(bare, first, ready=True)
        until(process, "NMI is ready on 1 of 2 nodes")
        waiting = {"reason": "ImagePullBackOff", "message": "cannot pull podidentity:0.1.0"}
        container = {
            "name": "nmi",
            "state": {"waiting": waiting},
            "ready": False,
            "restartCount": 0,
            "image": "i",
            "imageID": "",
        }
        become(bare, second, ready=False, containerStatuses=[container])
    ran = podidentity("enable", "--timeout", "3s")
    assert ran.code == 1
    node = second["spec"]["nodeName"]
    assert f"  {node}: ImagePullBackOff: cannot pull podidentity:0.1.0\n" in ran.err
    assert first["spec"]["nodeName"] not in ran.err
    assert "error: NMI is not ready on every node after 3 s." in ran.err
    assert "Build its image with ./scripts/image" in ran.err


def test_disable_takes_nmi_away_and_keeps_the_custom_resources(
    bare: World, podidentity: Run
) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    assert "The nodes keep their rules" in disabled(bare)
    assert bare.get(DAEMON_SET) is None
    for crd in manifests.crds():
        assert bare.get(f"{CRDS}/{crd['metadata']['name']}") is not None


POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


def policies(world: World) -> set[str]:
    """Return the policies for custom resources that are there."""
    ours = {each["metadata"]["name"] for each in manifests.admission_policies()}
    return ours & {each["metadata"]["name"] for each in world.send("GET", POLICIES)["items"]}


def checked(podidentity: Run) -> str:
    """Return what `check` says, in one line."""
    ran = podidentity("check")
    return " ".join((ran.out + ran.err).split())


def test_the_api_server_refuses_what_nmi_could_not_use_unless_that_is_switched_off(
    bare: World, podidentity: Run
) -> None:
    every = {each["metadata"]["name"] for each in manifests.admission_policies()}
    assert podidentity("enable", "--no-wait").code == 0
    assert policies(bare) == every
    path = f"{CUSTOM}/namespaces/default/azureidentities"
    wrong = {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureIdentity",
        "metadata": {"name": "wrong"},
        "spec": {"clientID": "no GUID"},
    }
    wait_until(lambda: wrong_identity(bare) == 422)
    answer = bare.api.post(path, json=wrong)
    assert "spec.clientID must be a GUID, not 'no GUID'" in answer.json()["message"]
    assert "refuses AzureIdentities and bindings of no use to NMI" in checked(podidentity)
    foreign = "--nmi-arg=--compat-foreign-secrets"
    assert podidentity("enable", "--no-wait", foreign).code == 0
    assert policies(bare) == every - {manifests.OWN_SECRETS}
    none = ("--no-admission-policies", f"{foreign}-")
    assert podidentity("enable", "--no-wait", *none).code == 0
    assert policies(bare) == set()
    wait_until(lambda: wrong_identity(bare) == 201)
    assert f"{', '.join(sorted(every))} are not there" in checked(podidentity)
    assert podidentity("enable", "--no-wait", "--forget=admission-policies").code == 0
    assert policies(bare) == every
    disabled(bare)
    assert policies(bare) == set()


def wrong_identity(world: World) -> int:
    """Post an AzureIdentity that NMI cannot use, as a dry-run; return the status."""
    head = {"apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity"}
    body = {**head, "metadata": {"name": "wrong"}, "spec": {"clientID": "no GUID"}}
    path = f"{CUSTOM}/namespaces/default/azureidentities"
    return world.api.post(path, params={"dryRun": "All"}, json=body).status_code


def test_the_policies_are_in_force_when_enable_ends_and_gone_when_it_takes_them_back(
    bare: World, podidentity: Run
) -> None:
    ran = podidentity("enable", "--timeout", "1s")
    assert "NMI is not ready on every node after 1 s" in ran.err
    assert wrong_identity(bare) == 422
    podidentity("enable", "--timeout", "1s", "--no-admission-policies")
    assert wrong_identity(bare) == 201
    podidentity("enable", "--timeout", "1s", "--forget=admission-policies")
    assert wrong_identity(bare) == 422


def test_a_policy_that_never_counts_is_named_and_nmi_is_not_started(
    bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_policies, "MOST_SECONDS", 0.0)
    ran = podidentity("enable")
    assert ran.code == 1
    assert "did not follow the change of ValidatingAdmissionPolicy podidentity-azure" in ran.err
    assert "NMI was not changed" in ran.err
    assert bare.get(DAEMON_SET) is None
    while wrong_identity(bare) == 201:  # the next test's world is up to date
        time.sleep(0.05)


def test_enable_gives_a_policy_for_nmis_own_account_two_seconds_before_it_gives_the_rights(
    bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    podidentity("disable", "--timeout", "1s")
    end_nmi(bare)
    assert podidentity("disable", "--timeout", "60s").code == 0, "the policy is gone"
    monkeypatch.setattr(asyncio, "sleep", sleep)
    ran = podidentity("enable", "--timeout", "0.1s")
    assert admission_policies.UNPROVED_SECONDS in waits
    first = next(line for line in ran.out.splitlines() if "/podidentity-nmi" in line)
    kind = "validatingadmissionpolicy.admissionregistration.k8s.io"
    assert first == f"{kind}/podidentity-nmi-tokens created"
    waits.clear()
    podidentity("enable", "--timeout", "0.1s")
    assert admission_policies.UNPROVED_SECONDS not in waits


def test_nmi_has_no_right_that_its_identities_do_not_need_until_one_needs_it(
    world: World, podidentity: Run, ns: str
) -> None:
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/podidentity-nmi"

    def resources() -> set[str]:
        return {each for rule in world.get(role)["rules"] for each in rule["resources"]}

    assert podidentity("enable", "--no-wait", "--identity-type=0").code == 0
    of_types, of_records = {"secrets", "serviceaccounts/token"}, {"azureassignedidentities"}
    assert not resources() & (of_types | of_records)
    assert "LacksRights" not in podidentity("check", "-o", "json").out
    secret = {"type": 1, "tenantID": "contoso.com", "clientPassword": {"name": "mail"}}
    world.custom(ns, "azureidentities", "mail", {"clientID": str(uuid.uuid4()), **secret})
    lacks = [
        str(each)
        for each in json.loads(podidentity("check", "-o", "json").out)
        if each["reason"] == "LacksRights"
    ]
    assert len(lacks) == 1
    assert "secrets" in lacks[0]
    standard = "--nmi-arg=--operation-mode=standard"
    assert podidentity("enable", "--no-wait", standard, "--identity-type=1").code == 0
    assert resources() & (of_types | of_records) == {"secrets", "azureassignedidentities"}
    assert "LacksRights" not in podidentity("check", "-o", "json").out


def test_before_1_30_there_are_no_admission_policies_and_whoever_asks_for_them_is_told() -> None:
    usual = admission_policies.wanted(29, asked=None, foreign_secrets=False)
    assert usual == admission_policies.wanted(29, asked=False, foreign_secrets=False) == []
    with pytest.raises(CommandError, match="needs Kubernetes"):
        admission_policies.wanted(29, asked=True, foreign_secrets=False)


def test_purging_removes_grants_and_names_what_stays_attached(
    bare: World, ns: str, podidentity: Run
) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    add = ("add", "-n", ns, "--name", "orders", "--identity-resource-id", IDENTITY)
    assert podidentity(*add, "--client-id", CLIENT, "--no-attach").code == 0
    path = f"{CUSTOM}/namespaces/{ns}/azureidentities/orders"
    record = {ATTACHED_TO: json.dumps([bare.plan.scale_set_id])}
    bare.send("PATCH", path, {"metadata": {"annotations": record}})
    ran = podidentity("disable", "--purge", "--yes", "--timeout", "1s")
    assert f"{IDENTITY} stays attached to scale set {bare.plan.scale_set}" in ran.err
    where = f"--resource-group {bare.plan.node_group} --name {bare.plan.scale_set}"
    at = f"{where} --subscription {bare.plan.subscription_id}"
    assert f"  az vmss identity remove {at} --identities {IDENTITY}\n" in ran.err
    assert f"podidentity-use-{CLIENT}:{ns} deleted" in ran.out
    assert f"clusterrole.rbac.authorization.k8s.io/podidentity-use-{CLIENT} deleted" in ran.out
    assert "configmap/podidentity-grants deleted" in ran.out
    assert podidentity("enable", "--no-wait").code == 0  # others need the custom resources


@pytest.mark.usefixtures("bare")
def test_disabling_what_is_not_enabled_is_no_failure(podidentity: Run) -> None:
    podidentity("disable")
    ran = podidentity("disable")
    assert ran.code == 0
    assert ran.out.splitlines()[:-1] == ["daemonset.apps/nmi not found"]


@pytest.mark.usefixtures("bare")
def test_without_aad_pod_identity_there_is_nothing_to_migrate(podidentity: Run) -> None:
    assert podidentity("disable", "--purge", "--yes").code == 0
    ran = podidentity("migrate", "plan")
    assert ran.code == 1
    said = "error: This cluster has no AAD Pod Identity. There is nothing to migrate.\n"
    assert ran.err == said


@pytest.mark.parametrize("command", [["list"], ["explain", "pod", "kube-system/x"]])
def test_without_pod_identity_it_says_how_to_enable_it(
    bare: World, podidentity: Run, command: list[str]
) -> None:
    assert podidentity("disable", "--purge", "--yes").code == 0
    if command[0] == "explain":
        bare.pod("kube-system", "x")
    ran = podidentity(*command)
    if command[0] == "explain":
        bare.send("DELETE", f"{PODS}/x", gracePeriodSeconds="0")
    assert ran.code == 1
    assert ran.err == (
        "error: Pod identity is not enabled in this cluster. Run podidentity enable.\n"
    )


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--debug-prot=8087", "No such option '--debug-prot'. Did you mean"),
        ("--nmi-port=70000", "70000 is no port"),
        ("--hold=soon", "soon"),
    ],
)
def test_a_flag_with_which_nmi_would_not_start_is_refused_before_anything_is_asked(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch, flag: str, said: str, more: list[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    ran = podidentity("enable", f"--nmi-arg={flag}", *more)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: NMI would not start with these flags: ")
    assert said in ran.err


def test_a_dry_run_prints_what_kubectl_takes_and_asks_no_cluster(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    ran = podidentity("enable", "--dry-run", "--image", "i:1")
    assert ran.code == 0
    *printed, last = yaml.safe_load_all(ran.out)
    policies = manifests.admission_policies()
    assert printed == [*manifests.crds(), *policies, *manifests.nmi(image="i:1", policy=True)]
    assert last == manifests.aks_exceptions()[0]
    assert "&id" not in ran.out
    ran = podidentity("enable", "--dry-run", "--no-aks-exception")
    assert "AzurePodIdentityException" not in {each["kind"] for each in yaml.safe_load_all(ran.out)}


def test_add_ons_of_aks_are_excepted_before_nmi_runs_unless_that_is_not_wanted(
    bare: World, podidentity: Run
) -> None:
    assert podidentity("enable", "--no-wait", "--no-aks-exception").code == 0
    assert bare.get(EXCEPTION) is None
    lines = podidentity("enable", "--no-wait", "--aks-exception").out.splitlines()
    made = lines.index(
        "azurepodidentityexception.aadpodidentity.k8s.io/aks-addon-exception created"
    )
    assert made < lines.index("daemonset.apps/nmi configured"), "with what it was told"
    assert bare.get(EXCEPTION)["spec"] == manifests.aks_exceptions()[0]["spec"]
    disabled(bare)
    assert bare.get(EXCEPTION) is None


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"azureIdentities": ["00000000-0000-0000-0000-000000000001"]}},
        {"metadata": {"labels": {"app.kubernetes.io/name": None}}},
    ],
    ids=["another spec", "somebody else's"],
)
def test_an_exception_that_others_changed_is_left_to_them(
    bare: World, podidentity: Run, change: Any
) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    changed = bare.send("PATCH", EXCEPTION, change)
    assert podidentity("enable", "--no-wait").code == 0
    assert "aks-addon-exception kept" in disabled(bare)
    assert bare.get(EXCEPTION) == changed


def test_an_extension_of_aks_that_is_there_is_excepted_and_counts_and_no_other_namespace_does(
    bare: World, podidentity: Run
) -> None:
    bare.namespace("flux-system")
    ran = podidentity("enable", "--no-wait")
    assert "flux-extension-exception created" in ran.out
    assert "dapr-exception" not in ran.out
    choices = chosen(bare.get(DAEMON_SET))
    assert choices.rules.exception_namespaces == frozenset({"flux-system", "kube-system"})
    made = f"{CUSTOM}/namespaces/flux-system/azurepodidentityexceptions"
    assert len(bare.get(made)["items"]) == 2
    disabled(bare)
    assert bare.get(made)["items"] == []


ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/podidentity-nmi"


@pytest.mark.parametrize(
    ("minor", "flags", "as_node"),
    [
        ("32", "", False),
        ("35", "", False),
        ("36", "", True),
        ("37+", "", True),
        ("", "", False),
        ("36", "--no-node-tokens", False),
        ("35", "--node-tokens", True),
    ],
)
def test_from_1_36_on_nmi_asks_for_pods_tokens_as_its_node_unless_told_otherwise(
    bare: World, asked: Callable[[str], Run], minor: str, flags: str, *, as_node: bool
) -> None:
    podidentity = asked(minor)
    assert podidentity("enable", "--no-wait", *flags.split()).code == 0
    found = [manifests.asks_for_any(rule) for rule in bare.get(ROLE)["rules"]]
    assert any(found) is not as_node
    for container in bare.get(DAEMON_SET)["spec"]["template"]["spec"]["containers"]:
        assert ("--tokens-as=node" in container["args"]) is as_node


def test_an_api_server_that_emulates_an_older_version_counts_as_that(
    bare: World, asked: Callable[..., Run]
) -> None:
    podidentity = asked("37", emulationMajor="1", emulationMinor="35")
    assert podidentity("enable", "--no-wait").code == 0
    serve = bare.get(DAEMON_SET)["spec"]["template"]["spec"]["containers"][0]
    assert "--tokens-as=node" not in serve["args"]


@pytest.mark.usefixtures("bare")
def test_check_finds_a_right_that_this_api_server_makes_needless(
    podidentity: Run, asked: Callable[[str], Run]
) -> None:
    def reasons() -> set[str]:
        return {each["reason"] for each in json.loads(podidentity("check", "-o", "json").out)}

    asked("34")
    assert podidentity("enable", "--no-wait").code == 0
    assert "TokensOfAnyPod" not in reasons()
    asked("36")
    assert "TokensOfAnyPod" in reasons()
    assert podidentity("enable", "--no-wait").code == 0
    assert "TokensOfAnyPod" not in reasons()


@pytest.mark.parametrize("subject", ["pod", "identity"])
@pytest.mark.parametrize("minor", ["32", "36"])
def test_check_names_an_audience_that_nmi_may_not_ask_for_and_the_flag_that_mends_it(
    bare: World, asked: Callable[[str], Run], minor: str, subject: str
) -> None:
    podidentity = asked(minor)
    assert podidentity("enable", "--no-wait").code == 0
    namespace, audience = bare.namespace(f"audiences-{minor}-{subject}"), "urn:it's-mine"
    made = {"type": 3, "clientID": str(uuid.uuid4()), "tenantID": str(uuid.uuid4())}
    federation = {"subject": subject, "audience": audience}
    bare.custom(namespace, "azureidentities", "own", {**made, "federation": federation})
    bare.custom(
        namespace, "azureidentitybindings", "own", {"azureIdentity": "own", "selector": "s"}
    )

    def told() -> list[dict[str, str]]:
        listed = json.loads(podidentity("check", "-o", "json").out)
        return [each for each in listed if each["reason"] == "AudienceNotNamed"]

    (only,) = told()
    assert (only["namespace"], only["name"]) == (namespace, "own")
    assert f"NMI may not ask for tokens for {audience}" in only["message"]
    assert shlex.quote(f"--token-audience={audience}") in only["nextStep"]
    assert podidentity("enable", "--no-wait", f"--token-audience={audience}").code == 0
    assert told() == []
    federation = {"subject": subject, "audience": "api://AzureADTokenExchangeChina"}
    path = f"{CUSTOM}/namespaces/{namespace}/azureidentities/own"
    bare.send("PATCH", path, {"spec": {"federation": federation}})
    assert podidentity("enable", "--no-wait").code == 0
    assert told() == []
    # Else `check` looks at them in the tests of other files.
    for plural in ("azureidentities", "azureidentitybindings"):
        bare.send("DELETE", f"{CUSTOM}/namespaces/{namespace}/{plural}")


@pytest.fixture
def asked(podidentity: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run commands while the API server says another minor version."""
    get = Kube.get

    def saying(minor: str, **more: str) -> Run:
        async def told(kube: Kube, path: str, params: Any = None) -> bytes:
            if path == "/version":
                return json.dumps({"major": "1", "minor": minor, **more}).encode()
            return await get(kube, path, params)

        monkeypatch.setattr(Kube, "get", told)
        return podidentity

    return saying


OF_CHART = {
    "app.kubernetes.io/name": "aad-pod-identity",
    "app.kubernetes.io/instance": "mine",
    "app.kubernetes.io/component": "nmi",
}
OF_MANIFEST = {"component": "nmi", "tier": "node"}


def archived(namespace: str, name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return NMI of AAD Pod Identity."""
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": {**labels, "more": "said"}},
                "spec": {"containers": [{"name": "nmi", "image": "mcr.example/nmi:v1.8.17"}]},
            },
        },
    }


def test_beside_nmi_of_aad_pod_identity_ours_comes_and_how_that_goes_is_said(
    bare: World, podidentity: Run
) -> None:
    path = "/apis/apps/v1/namespaces/default/daemonsets"
    bare.send("POST", path, archived("default", "aad-pod-identity-nmi", OF_CHART))
    ran = podidentity("enable", "--no-wait")
    bare.send("DELETE", f"{path}/aad-pod-identity-nmi")
    assert ran.code == 0
    assert bare.get(DAEMON_SET) is not None
    assert "kubectl delete daemonset -n default aad-pod-identity-nmi\n" in ran.err
    assert podidentity("enable", "--no-wait").err == ""


def test_on_the_way_back_disable_says_that_the_archived_nmi_serves_its_nodes(
    bare: World, podidentity: Run
) -> None:
    """Its rules are there before ours go, so only nodes without it are open."""
    assert podidentity("enable", "--no-wait", "--no-grants", "--nmi-arg=--on-exit=remove").code == 0
    path = "/apis/apps/v1/namespaces/default/daemonsets"
    bare.send("POST", path, archived("default", "aad-pod-identity-nmi", OF_CHART))
    right = bare.bind("aad-pod-identity-nmi", "default", "default")
    said = disabled(bare)
    bare.send("DELETE", f"{path}/aad-pod-identity-nmi")
    bare.send("DELETE", right)
    served = "DaemonSet default/aad-pod-identity-nmi of AAD Pod Identity serves the pods of each"
    assert served in said
    record = "configmap/podidentity-grants deleted"
    assert record in podidentity("migrate", "rollback", "--yes").out
    assert podidentity("enable", "--no-wait", "--no-grants").code == 0
    assert record not in podidentity("migrate", "rollback", "--yes").out, "NMI needs it"


def test_where_nmi_of_aad_pod_identity_has_our_name_nothing_is_made_and_the_order_is_said(
    bare: World, podidentity: Run
) -> None:
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets"
    bare.send("POST", path, archived("kube-system", "nmi", OF_MANIFEST))
    ran = podidentity("enable", "--no-wait")
    there = bare.get(DAEMON_SET)
    bare.send("DELETE", f"{path}/nmi")
    assert (ran.code, ran.out) == (1, "")
    pods = ",".join(f"{key}={value}" for key, value in sorted(OF_MANIFEST.items()))
    order = [
        "kubectl delete daemonset -n kube-system nmi --cascade=orphan",
        "podidentity enable",
        f"kubectl delete pods -n kube-system -l {pods}",
    ]
    assert f"{'; '.join(order)}. Or" in ran.err
    assert there["spec"]["selector"]["matchLabels"] == OF_MANIFEST
    assert podidentity("enable", "--no-wait").code == 0


def selectors(world: World) -> list[dict[str, str]]:
    """Return the labels of nodes on which NMI and its probe are."""
    found = (world.get(path) for path in (DAEMON_SET, PROBE_SET))
    return [each["spec"]["template"]["spec"]["nodeSelector"] for each in found]


def test_nmi_can_be_kept_to_some_nodes_and_let_onto_all_again(
    bare: World, podidentity: Run
) -> None:
    """A take-over goes by node pools."""
    linux = {"kubernetes.io/os": "linux"}
    assert podidentity("enable", "--no-wait", "--node-selector", "pool-").code == 0
    assert selectors(bare) == [linux, linux]
    podidentity("enable", "--no-wait", "--node-selector", "pool=a")
    assert selectors(bare) == [{**linux, "pool": "a"}] * 2
    podidentity("enable", "--no-wait")
    assert selectors(bare) == [{**linux, "pool": "a"}] * 2, "it is kept until it is taken back"
    podidentity("enable", "--no-wait", "--node-selector", "pool-", "--node-selector", "x.io/y=")
    assert selectors(bare) == [{**linux, "x.io/y": ""}] * 2
    podidentity("enable", "--no-wait", "--node-selector", "x.io/y-")
    assert selectors(bare) == [linux, linux]
    dry = podidentity("enable", "--dry-run", "--node-selector", "pool-").out
    assert "pool" not in dry


@pytest.mark.parametrize("wrong", ["pool", "=a", "pool=a b", "-"])
def test_what_is_no_label_is_said(podidentity: Run, wrong: str) -> None:
    ran = podidentity("enable", "--dry-run", "--node-selector", wrong)
    assert ran.code == 2
    assert "is no label: KEY=VALUE, or KEY- without it" in ran.err


def test_nmi_may_have_a_namespace_of_its_own_and_every_command_finds_it(
    bare: World, podidentity: Run
) -> None:
    with running("enable", "--namespace", "identity", "--nmi-arg=--authorization=off") as process:
        said = until(process, "NMI is ready on 0 of 2 nodes")
    assert "namespace/identity created" in said
    own = DAEMON_SET.replace("kube-system", "identity")
    assert bare.get(DAEMON_SET) is None
    assert bare.get(own) is not None
    # Once more, without a word of it: it is where it was.
    again = podidentity("enable", "--no-wait", "--nmi-arg=--authorization=off")
    assert "daemonset.apps/nmi unchanged" in again.out
    pods = PODS.replace("kube-system", "identity")
    first = nmi_pods(bare, pods)[0]
    bare.send(
        "PATCH",
        f"{pods}/{first['metadata']['name']}/status",
        {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
    )
    ours = bare.namespace("ours")
    bare.pod(ours, "asking", {"aadpodidbinding": "x"})
    bare.custom(ours, "azureidentities", "x", {"type": 0, "clientID": str(uuid.uuid4())})
    bare.custom(ours, "azureidentitybindings", "x", {"azureIdentity": "x", "selector": "x"})
    chain = json.loads(podidentity("explain", "pod", "ours/asking", "-o", "json").out)["chain"]
    ready = f"{first['metadata']['name']} is ready on node"
    assert any(ready in link["text"] for link in chain)
    found = json.loads(podidentity("check", "-o", "json").out)
    (waiting,) = [each for each in found if each["reason"] == "NotReady"]
    assert waiting["namespace"] == "identity"
    # A node has one NMI.
    other = podidentity("enable", "--no-wait", "--namespace", "elsewhere")
    assert other.code == 1
    assert "NMI is in namespace identity" in other.err
    with running("disable") as process:
        until(process, "serviceaccount/podidentity-nmi deleted")
        end_nmi(bare, pods)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert bare.get(own) is None


def disabled(bare: World) -> str:
    """Disable NMI; return the output after the deletion of its own objects."""
    with running("disable") as process:
        until(process, "serviceaccount/podidentity-nmi deleted")
        end_nmi(bare)
        # Not communicate(): it passes over what was read ahead with the line before.
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(timeout=60) == 0
        return said


def test_purging_asks_first_and_a_no_is_an_answer(
    bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.confirm", lambda _: False)
    before = len(bare.send("GET", CRDS)["items"])
    ran = podidentity("disable", "--purge")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: Nothing was changed. Without --purge they are kept.\n"
    assert len(bare.send("GET", CRDS)["items"]) == before


def test_an_agent_that_cannot_hand_over_is_stopped_first_and_that_is_said(
    bare: World, podidentity: Run
) -> None:
    *_, old = manifests.nmi()
    pod = old["spec"]["template"]["spec"]
    pod["containers"] = [pod["containers"][1] | {"name": "nmi"}]
    made = bare.send("POST", DAEMON_SET.rpartition("/")[0], old)
    ran = podidentity("enable", "--no-wait")
    assert "daemonset.apps/nmi deleted: it cannot hand over, and pods get no token" in ran.out
    assert "daemonset.apps/nmi created" in ran.out
    assert bare.get(DAEMON_SET)["metadata"]["uid"] != made["metadata"]["uid"]


TAINT_ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/podidentity-nmi-startup-taint"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
TAINT_POLICY = f"{ADMISSION}/validatingadmissionpolicies/podidentity-nmi-startup-taint"


def test_the_right_to_take_the_start_up_taint_off_comes_when_asked_for_behind_its_policy(
    bare: World, podidentity: Run
) -> None:
    podidentity("enable", "--no-wait")
    assert bare.get(TAINT_ROLE) is None
    lines = podidentity("enable", "--no-wait", "--startup-taint").out.splitlines()
    made = [line.split("/")[0] for line in lines if "podidentity-nmi-startup-taint" in line]
    assert [each.partition(".")[0] for each in made] == [
        "validatingadmissionpolicy",
        "validatingadmissionpolicybinding",
        "clusterrole",
        "clusterrolebinding",
    ]
    for container in bare.get(DAEMON_SET)["spec"]["template"]["spec"]["containers"]:
        assert f"--startup-taint={manifests.STARTUP_TAINT}" in container["args"]
    disabled(bare)
    assert bare.get(TAINT_ROLE) is None
    assert bare.get(TAINT_POLICY) is None


def test_where_it_is_taken_back_the_right_goes_before_its_policy(
    bare: World, podidentity: Run
) -> None:
    podidentity("enable", "--no-wait", "--startup-taint=example.com/wait")
    assert "example.com/wait" in json.dumps(bare.get(TAINT_POLICY))
    out = podidentity("enable", "--no-wait", "--forget=startup-taint").out
    gone = [line.split(".")[0] for line in out.splitlines() if line.endswith(" deleted")]
    assert gone == [
        "clusterrolebinding",
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
        "clusterrole",
    ]
    assert "take it out of the configuration of their pools" in out
    assert bare.get(TAINT_ROLE) is None
    assert "--startup-taint" not in json.dumps(bare.get(DAEMON_SET)["spec"])


def test_a_start_up_taint_has_a_key_as_kubernetes_has_them(podidentity: Run) -> None:
    ran = podidentity("enable", "--dry-run", "--startup-taint=it's")
    assert ran.code == 2
    assert "is no key of a taint" in ran.err


def test_where_no_policy_can_bound_it_the_right_is_refused(
    podidentity: Run, bare: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def old(_: Kube) -> int:
        return 29

    monkeypatch.setattr("podidentity.cli.enable.minor_version", old)
    ran = podidentity("enable", "--no-wait", "--startup-taint")
    assert ran.code == 1
    assert "--startup-taint needs Kubernetes 1.30" in ran.err
    assert bare.get(TAINT_ROLE) is None
