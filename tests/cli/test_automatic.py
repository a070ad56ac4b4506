"""`enable --profile aks-automatic`: what AKS Automatic refuses is not asked of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from podidentity import manifests
from podidentity.cli.enable import PROTECTED
from tests.cli.conftest import DAEMON_SET, EXCEPTION, Ran, end_nmi, settled_daemon_set
from tests.cli.world import World

Run = Callable[..., Ran]
PLACE = f"/api/v1/namespaces/{manifests.OWN_NAMESPACE}"
OWN_DAEMON_SET, OWN_PROBE_SET = (
    f"/apis/apps/v1/namespaces/{manifests.OWN_NAMESPACE}/daemonsets/{name}"
    for name in ("nmi", "podidentity-probe")
)
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
AUTOMATIC = ("enable", "--profile", "aks-automatic")


def tolerations(daemon_set: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = daemon_set["spec"]["template"]["spec"]["tolerations"]
    return found


def test_nothing_is_written_into_akss_namespaces_and_no_pod_tolerates_every_taint(
    bare: World, podidentity: Run
) -> None:
    ran = podidentity(*AUTOMATIC, "--no-wait", "--toleration=team=blue:NoSchedule")
    assert ran.code == 0, ran.err
    assert f"namespace/{manifests.OWN_NAMESPACE} created" in ran.out
    assert "aks-addon-exception" not in ran.out
    assert bare.get(DAEMON_SET) is None
    assert bare.get(EXCEPTION) is None
    assert bare.get("/api/v1/namespaces/kube-system/configmaps/podidentity-grants") is None
    assert bare.get(f"{PLACE}/configmaps/podidentity-grants") is not None
    found = tolerations(bare.get(OWN_DAEMON_SET))
    assert all(each.get("key", "") not in {"", "CriticalAddonsOnly"} for each in found)
    assert found[-1] == {"key": "team", "value": "blue", "effect": "NoSchedule"}
    assert podidentity("enable", "--no-wait", "--no-aks-exception").code == 0
    assert bare.get(DAEMON_SET) is None  # NMI stays where it is


def test_the_command_for_automatic_may_be_repeated(bare: World, podidentity: Run) -> None:
    assert podidentity(*AUTOMATIC, "--no-wait").code == 0
    settled_daemon_set(bare)
    ran = podidentity(*AUTOMATIC, "--no-wait")
    assert {line.split()[-1] for line in ran.out.splitlines()} == {"unchanged"}


@pytest.mark.parametrize(
    ("actions", "refused"), [(["Deny"], True), (["Audit"], False), (["Warn", "Deny"], True)]
)
def test_without_the_profile_nothing_is_made_where_aks_keeps_kube_system_to_itself(
    bare: World,
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
    actions: list[str],
    refused: bool,
) -> None:
    monkeypatch.setattr("podidentity.cli.enable.find_where_known", answering(actions))
    ran = podidentity("enable", "--no-wait")
    assert (ran.code == 1) is refused
    assert (bare.get(DAEMON_SET) is None) is refused
    if refused:
        assert ran.out == ""
        assert ran.err == (
            "error: This is AKS Automatic: it keeps kube-system to itself, and NMI cannot be "
            "there. Run podidentity enable --profile aks-automatic.\n"
        )


def answering(actions: list[str]) -> Any:
    """Return a look that finds AKS's binding; the sandbox's API server knows Deny alone."""
    from podidentity.cli.objects import POLICY_BINDINGS, find_where_known

    async def found(kube: Any, resource: Any, namespace: str, name: str) -> Any:
        if (resource, name) == (POLICY_BINDINGS, PROTECTED):
            return {"spec": {"policyName": name, "validationActions": actions}}
        return await find_where_known(kube, resource, namespace, name)

    return found


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--namespace", "kube-system"], "AKS Automatic keeps kube-system to itself"),
        (["--toleration=CriticalAddonsOnly"], "refuses pods that tolerate CriticalAddonsOnly"),
        (["--toleration=CriticalAddonsOnly=true:NoSchedule"], "refuses pods that tolerate"),
        (["--toleration=:NoSchedule"], "is no taint"),
        (["--toleration=a b"], "is no taint"),
        (["--toleration=a:Never"], "is no taint"),
        (["--toleration="], "is no taint"),
    ],
)
def test_what_automatic_would_refuse_is_refused_before_anything_is_made(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch, flags: list[str], says: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    ran = podidentity(*AUTOMATIC, *flags, "--dry-run")
    assert ran.code != 0
    assert says in ran.err
    assert ran.out == ""


def test_a_toleration_is_of_no_use_where_every_taint_is_tolerated(podidentity: Run) -> None:
    ran = podidentity("enable", "--toleration=a", "--dry-run")
    assert ran.code == 1
    assert "NMI tolerates every taint. Leave --toleration out" in ran.err


@pytest.mark.parametrize(
    ("written", "toleration"),
    [
        ("a", {"key": "a", "operator": "Exists"}),
        ("a=", {"key": "a", "value": ""}),
        ("a=b", {"key": "a", "value": "b"}),
        ("x.io/a:NoExecute", {"key": "x.io/a", "operator": "Exists", "effect": "NoExecute"}),
        ("x.io/a=b:NoSchedule", {"key": "x.io/a", "value": "b", "effect": "NoSchedule"}),
    ],
)
def test_a_taint_is_written_as_kubectl_writes_it(
    podidentity: Run, written: str, toleration: dict[str, str]
) -> None:
    ran = podidentity(*AUTOMATIC, f"--toleration={written}", "--dry-run")
    daemon_sets = [each for each in yaml.safe_load_all(ran.out) if each["kind"] == "DaemonSet"]
    assert tolerations(daemon_sets[0])[-1] == toleration


def test_a_dry_run_is_for_the_namespace_of_the_profile_and_has_no_exception(
    podidentity: Run,
) -> None:
    printed = list(yaml.safe_load_all(podidentity(*AUTOMATIC, "--dry-run").out))
    assert "AzurePodIdentityException" not in {each["kind"] for each in printed}
    assert "kube-system" not in str(printed[4:])


def test_nmi_tolerates_the_start_up_taint_whatever_its_key() -> None:
    made = manifests.nmi(
        startup_taint="example.com/wait", tolerations=manifests.automatic_tolerations()
    )
    daemon_sets = [each for each in made if each["kind"] == "DaemonSet"]
    assert len(daemon_sets) == 2, "the agent and its probe"
    for each in daemon_sets:
        found = each["spec"]["template"]["spec"]["tolerations"]
        assert {"key": "example.com/wait", "operator": "Exists"} in found
        assert all(one in found for one in manifests.automatic_tolerations())


# ---- On an API server that refuses what AKS Automatic refuses


@pytest.fixture
def strict(bare: World) -> World:
    """The world with policies that stand in for AKS Automatic's."""
    (listed,) = yaml.safe_load_all(Path(__file__).with_name("aks_automatic.yaml").read_text())
    names = [each["metadata"]["name"] for each in listed["items"]]
    for each in listed["items"]:
        bare.send("POST", f"{ADMISSION}/validatingadmissionpolicies", each)
    for name in names:
        binding = {
            "metadata": {"name": f"{name}-binding"},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        }
        bare.send("POST", f"{ADMISSION}/validatingadmissionpolicybindings", binding)
    with bare.control_plane.policies_seen():
        return bare


def refusal(world: World, manifest: dict[str, Any]) -> str:
    """Return by what an object is refused; "" if it is not."""
    root, plural = {
        "DaemonSet": ("/apis/apps/v1", "daemonsets"),
        "ServiceAccount": ("/api/v1", "serviceaccounts"),
    }[manifest["kind"]]
    place = f"{root}/namespaces/{manifest['metadata']['namespace']}/{plural}"
    answer = world.api.post(place, params={"dryRun": "All"}, json=manifest)
    found = re.search(r"ValidatingAdmissionPolicy '([^']*)'", answer.text)
    return found[1] if found else ""


def test_there_the_standard_nmi_is_refused_in_each_way_and_that_of_the_profile_is_not(
    strict: World,
) -> None:
    own = manifests.OWN_NAMESPACE
    for name in (own, "other"):
        strict.namespace(name)
    named = manifests.automatic_tolerations()
    assert {
        "in kube-system": refusal(strict, manifests.nmi()[0]),
        "every taint": refusal(strict, manifests.nmi(namespace=own)[-1]),
        "CriticalAddonsOnly": refusal(
            strict,
            manifests.nmi(
                namespace=own, tolerations=[{"key": "CriticalAddonsOnly", "operator": "Exists"}]
            )[-1],
        ),
        "each taint of an effect": refusal(
            strict,
            manifests.nmi(
                namespace=own, tolerations=[{"effect": "NoSchedule", "operator": "Exists"}]
            )[-1],
        ),
        "not excluded": refusal(
            strict, manifests.nmi(namespace="other", tolerations=named)[-1]
        ).startswith("aks-managed-baseline-host"),  # two refuse it, and either may be first
        "the profile": [
            refusal(strict, each)
            for each in manifests.nmi(namespace=own, tolerations=named)
            if each["kind"] == "DaemonSet"
        ],
    } == {
        "in kube-system": "aks-managed-protect-system-namespaces",
        "every taint": "aks-managed-critical-addons-only",
        "CriticalAddonsOnly": "aks-managed-critical-addons-only",
        "each taint of an effect": "aks-managed-critical-addons-only",
        "not excluded": True,
        "the profile": ["", ""],
    }


def test_there_the_profile_is_enabled_and_disabled_and_nothing_of_it_is_refused(
    strict: World, podidentity: Run
) -> None:
    ran = podidentity("enable", "--no-wait")
    assert "This is AKS Automatic" in ran.err
    ran = podidentity(*AUTOMATIC, "--no-wait")
    assert ran.code == 0, ran.err
    assert strict.get(OWN_DAEMON_SET) is not None
    assert strict.get(f"{PLACE}/configmaps/podidentity-grants") is not None
    assert podidentity(*AUTOMATIC, "--no-wait").code == 0
    for each in (OWN_DAEMON_SET, OWN_PROBE_SET):
        strict.send("DELETE", each)
    end_nmi(strict, f"{PLACE}/pods")
    ran = podidentity("disable", "--namespace", manifests.OWN_NAMESPACE)
    assert ran.code == 0, ran.err


def test_there_a_namespace_that_is_not_excluded_is_told_with_the_policy_and_where_to_read_on(
    strict: World, podidentity: Run
) -> None:
    ran = podidentity(*AUTOMATIC, "--no-wait", "--namespace", "elsewhere")
    assert ran.code == 1
    assert "is forbidden: ValidatingAdmissionPolicy 'a" in ran.err
    assert "A policy of the cluster refuses it, and no right is missing" in ran.err
    assert strict.get("/apis/apps/v1/namespaces/elsewhere/daemonsets/nmi") is None
