"""`check` on versions, rights of programs, what is left of others, and who else takes requests."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from podidentity import __version__, manifests
from podidentity.cli.agent_choices import Choices
from podidentity.cli.checks import groups
from podidentity.cli.checks.check import perform
from podidentity.cli.checks.findings import Severity
from podidentity.cli.checks.leftovers import archived, lives_elsewhere, outlived, stuck, unkept
from podidentity.cli.checks.nodes import open_while_starting
from podidentity.cli.checks.printing import lines
from podidentity.cli.checks.programs import lacking, review_for, rights_of
from podidentity.cli.checks.reading import Reading
from podidentity.cli.checks.takers import takers
from podidentity.cli.checks.versions import definitions, differing, told, version_of
from podidentity.cli.cluster_rights import Single
from podidentity.core.resources import ObjectRef, Pod
from podidentity.wire import rbac
from tests.cli.conftest import Ran
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.world import CRDS, World

NMI = manifests.nmi()[-1]
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def of_image(image: str, **labels: str) -> Any:
    made = copy.deepcopy(NMI)
    made["metadata"]["labels"] = {**made["metadata"].get("labels", {}), **labels}
    made["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return made


@pytest.mark.parametrize(
    ("image", "version"),
    [
        (f"localhost/podidentity:{__version__}", __version__),
        ("registry.example.com:5000/a/podidentity:v0.3.1", "0.3.1"),
        ("podidentity:0.3.0-rc.1@sha256:aa", "0.3.0-rc.1"),
        ("registry.example.com:5000/podidentity", ""),
        ("podidentity@sha256:0123", ""),
        ("podidentity:latest", ""),
    ],
)
def test_a_version_is_the_tag_of_an_image_or_unknown(image: str, version: str) -> None:
    assert version_of(of_image(image)) == version


def test_a_program_of_another_version_is_found_and_all_versions_are_told() -> None:
    old = of_image("podidentity:0.1.0", **{"helm.sh/chart": "podidentity-0.1.0"})
    (found,) = differing("0.2.0", [old, of_image("podidentity:0.2.0"), of_image("a@sha256:1")])
    assert (found.reason, found.severity) == ("VersionsDiffer", Severity.WARNING)
    assert "of version 0.1.0, and this command of 0.2.0" in found.what
    assert told("0.2.0", [old]) == (
        "podidentity 0.2.0; DaemonSet kube-system/nmi 0.1.0, of chart podidentity-0.1.0"
    )


def by_name() -> dict[str, Any]:
    return {each["metadata"]["name"]: each for each in manifests.crds()}


def test_the_definitions_of_enable_lack_nothing() -> None:
    assert list(definitions(manifests.crds(), by_name())) == []


def test_a_definition_that_does_not_know_a_field_is_found_with_the_field() -> None:
    there = by_name()
    version = there["azureidentities.aadpodidentity.k8s.io"]["spec"]["versions"][0]
    del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["federation"]
    (found,) = definitions(manifests.crds(), there)
    assert (found.reason, found.about.name) == (
        "OldDefinition",
        "azureidentities.aadpodidentity.k8s.io",
    )
    assert "It does not know spec.federation" in found.what
    keeping = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    keeping["x-kubernetes-preserve-unknown-fields"] = True
    assert list(definitions(manifests.crds(), there)) == [], "that one drops nothing"


@pytest.mark.parametrize("how", ["gone", "of another version"])
def test_a_definition_that_is_not_there_or_not_served_is_an_error(how: str) -> None:
    there = by_name()
    name = "azureidentitybindings.aadpodidentity.k8s.io"
    if how == "gone":
        there[name] = None
    else:
        there[name]["spec"]["versions"][0]["name"] = "v1beta1"
    (found,) = definitions(manifests.crds(), there)
    assert (found.reason, found.severity) == ("NoDefinition", Severity.ERROR)


# ---- Programs


def test_what_nmi_needs_is_that_of_its_own_roles_and_nobody_elses() -> None:
    found = rights_of(manifests.nmi(as_node=True), "kube-system")
    assert Single("", "pods", "watch") in found
    assert not [each for each in found if each.resource.startswith("/")], "that is of readers"


def test_a_program_that_lacks_rights_is_found_with_them() -> None:
    account = ObjectRef("kube-system", "podidentity-nmi")
    has = {
        Single("", "pods", "list"): True,
        Single("", "secrets", "watch"): False,
        Single("a", "events", "create", "e"): False,
    }
    (found,) = lacking("DaemonSet", ObjectRef("kube-system", "nmi"), account, has)
    assert found.reason == "LacksRights"
    assert "may not watch secrets, create events e in a." in found.what
    assert list(lacking("DaemonSet", account, account, {Single("", "pods", "list"): True})) == []


@pytest.mark.parametrize(
    ("right", "attributes"),
    [
        (
            Single("", "serviceaccounts/token", "create"),
            {"resource": "serviceaccounts", "subresource": "token", "verb": "create"},
        ),
        (
            Single("a", "leases.coordination.k8s.io", "get", "x"),
            {
                "group": "coordination.k8s.io",
                "resource": "leases",
                "verb": "get",
                "namespace": "a",
                "name": "x",
            },
        ),
    ],
)
def test_a_review_asks_for_one_right(right: Single, attributes: dict[str, str]) -> None:
    spec = review_for(ObjectRef("kube-system", "nmi"), right)["spec"]
    assert spec["resourceAttributes"] == attributes
    assert spec["user"] == "system:serviceaccount:kube-system:nmi"


# ---- Leftovers of others


def archived_nmi(name: str = "nmi", **labels: str) -> Any:
    template = {"component": "nmi", "tier": "node", **labels}
    return {
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {
            "template": {
                "metadata": {"labels": template},
                "spec": {"containers": [{"name": "nmi", "image": "mcr/nmi:v1.8.17"}]},
            }
        },
    }


def test_aad_pod_identity_is_found_and_told_from_the_addon_of_aks() -> None:
    by_aks = {"kubernetes.azure.com/managedby": "aks"}
    mine, add_on = archived([archived_nmi(), archived_nmi("addon", **by_aks)])
    assert "docs/reference/compatibility.md" in mine.mend
    assert "az aks update --disable-pod-identity" in add_on.mend


@pytest.mark.parametrize(
    ("record", "lives"),
    [
        ({"renewTime": "2026-11-25T09:46:35Z"}, True),
        ({"renewTime": "2026-11-25T09:46:00Z"}, False),
        ({"renewTime": "2026-11-25T09:46:35Z", "holderIdentity": ""}, False),
        ({"renewTime": "x"}, False),
    ],
    ids=["renewed", "run out", "released", "no time"],
)
def test_a_lock_that_is_renewed_shows_an_archived_mic_that_no_deployment_shows(
    record: dict[str, str], lives: bool
) -> None:
    now = datetime.fromisoformat("2026-11-25T09:46:40Z").timestamp()
    whole = {"holderIdentity": "mic-7", "leaseDurationSeconds": 15, **record}
    annotations = {"control-plane.alpha.kubernetes.io/leader": json.dumps(whole)}
    found = list(lives_elsewhere({"metadata": {"annotations": annotations}}, now))
    assert [each.reason for each in found] == ["ArchivedRelease"] * lives
    if found:
        assert found[0].what.startswith("AAD Pod Identity's MIC works somewhere: mic-7 renewed")


def test_an_object_that_waits_for_its_finalizer_is_found_with_the_command_that_takes_it_off() -> (
    None
):
    finalizer = ["azureassignedidentity.finalizers.aadpodidentity.k8s.io"]
    meta = {"namespace": "shop", "finalizers": finalizer}
    waiting: list[Any] = [
        {"metadata": {**meta, "name": "b", "deletionTimestamp": "2026-11-25T09:46:40Z"}},
        {"metadata": {**meta, "name": "kept"}},
        {"metadata": {"name": "c", "namespace": "shop", "deletionTimestamp": "x"}},
        {
            "metadata": {
                "name": "d",
                "namespace": "shop",
                "deletionTimestamp": "x",
                "finalizers": ["y"],
            }
        },
    ]
    (found,) = stuck(waiting)
    assert (found.reason, str(found.about)) == ("StuckDeletion", "shop/b")
    assert "kubectl patch azureassignedidentities -n shop b --type=merge -p" in found.mend


def test_records_that_no_mic_keeps_are_counted() -> None:
    (found,) = unkept([{"metadata": {"name": n, "namespace": "a"}} for n in "cb"])
    assert (str(found.about), found.what[:9]) == ("a/b", "2 records")
    assert list(unkept([])) == []


def test_a_grant_to_a_namespace_that_has_gone_is_found_and_those_of_others_are_not() -> None:
    gone = rbac.binding("x", rbac.Grantee("gone"), rbac.Giver.ADD)
    account = rbac.binding("y", rbac.Grantee("lost", "web"), rbac.Giver.GRANT)
    here = rbac.binding("x", rbac.Grantee("here"), rbac.Giver.ADD)
    others = {**gone, "metadata": {"name": "somebody's"}}
    labels = {"app.kubernetes.io/part-of": "podidentity", "app.kubernetes.io/managed-by": "Helm"}
    by_helm = {**rbac.binding("z", rbac.Grantee("left"), rbac.Giver.ADD)}
    by_helm["metadata"] = {"name": "mine-use-z:left", "labels": labels}
    of_nmi = {**account, "metadata": {"name": "mine-nmi", "labels": labels}}
    found = list(outlived([gone, account, here, others, by_helm, of_nmi], {"here"}))
    assert [each.what.split()[6].rstrip(",") for each in found] == ["gone", "lost", "left"]
    assert found[0].mend == f"Run kubectl delete clusterrolebinding {gone['metadata']['name']}."


# ---- Nodes


def taker(**changes: Any) -> Any:
    spec = {
        "hostNetwork": True,
        "containers": [
            {
                "name": "a",
                "image": "x",
                "args": ["--metadata-addr=169.254.169.254"],
                "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
            }
        ],
        **changes,
    }
    metadata = {"name": "other", "namespace": "meta"}
    return {"metadata": metadata, "spec": {"template": {"metadata": {}, "spec": spec}}}


def test_who_else_may_lead_requests_to_himself_is_found_by_his_words_and_his_rights() -> None:
    (found,) = takers([taker(), NMI, archived_nmi()], "169.254.169.254")
    assert (str(found.about), found.reason) == ("meta/other", "OtherTaker")
    harmless = [
        taker(hostNetwork=False),
        taker(containers=[{"name": "a", "args": ["169.254.169.254"]}]),
        taker(containers=[{"name": "a", "securityContext": {"privileged": True}}]),
    ]
    assert list(takers(harmless, "169.254.169.254")) == []


def test_nodes_that_are_open_while_they_start_are_a_warning() -> None:
    (found,) = open_while_starting({"b": "", "a": "", "c": "the node unit"}, "")
    assert (found.about.name, found.reason) == ("a", "OpenWhileStarting")
    assert found.severity is Severity.WARNING
    assert found.what.startswith("a, b: ")
    assert list(open_while_starting({"c": "the node unit"}, "")) == []


TICK = "\u221a"


def ticks(out: str, group: str) -> list[str]:
    """Return the ticked lines of one group."""
    lines = out[out.index(f"{group}\n---") :].split("\n\n")[0].splitlines()
    return [each for each in lines if each.startswith(TICK)]


def test_without_nmi_check_fails_with_one_error_and_ticks_nothing_about_nmi(
    bare: World, ns: str, podidentity: Callable[..., Ran]
) -> None:
    bare.custom(ns, "azureidentities", "orders", {"clientID": CLIENT, "resourceID": IDENTITY})
    bare.custom(ns, "azureidentitybindings", "o", {"azureIdentity": "orders", "selector": "o"})
    bare.pod(ns, "web", {"aadpodidbinding": "o"})
    ran = podidentity("check")
    assert ran.code == 1
    assert ran.out.count("(NoAgent)") == 1
    assert "1 pods with an identity get no token" in " ".join(ran.out.split())
    assert ticks(ran.out, "NMI") == []
    assert ticks(ran.out, "Nodes") == [f"{TICK} nobody else takes requests to the metadata address"]
    assert ticks(ran.out, "MIC") == []
    assert "checks not made: NMI is not in this cluster" in ran.out


class WithoutNmi(Reading):
    """A cluster that has an archived NMI, ready on so many nodes, and none of ours."""

    def __init__(self, ready: int) -> None:
        super().__init__(kube=None, choices=Choices())  # type: ignore[arg-type]
        self._archived = {**archived_nmi(), "status": {"numberReady": ready}}

    async def nmi(self) -> None:
        return None

    async def archived_nmis(self) -> list[Any]:
        return [self._archived]

    async def asking(self) -> list[Pod]:
        return []


def test_nodes_that_the_daemon_sets_selector_leaves_out_have_the_label_and_no_tick(
    world: World, podidentity: Callable[..., Ran]
) -> None:
    made = copy.deepcopy(NMI)
    made["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "blue"}
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets"
    world.send("POST", path, made)
    ran = podidentity("check")
    told = " ".join(ran.out.split())
    assert ran.code == 1
    assert "NMI's DaemonSet has the nodeSelector pool=blue. Their pods get no token." in told
    assert ticks(ran.out, "Nodes") == [f"{TICK} nobody else takes requests to the metadata address"]
    assert "checks not made: NMI is on no node" in told


@pytest.mark.parametrize("ready", [2, 0])
async def test_no_agent_is_missed_where_the_archived_nmi_serves(ready: int) -> None:
    (check,) = [each for each in groups.NMI.checks if each.holds == "NMI is in this cluster"]
    outcome = await perform(check, WithoutNmi(ready))
    assert [each.reason for each in outcome.findings] == ([] if ready else ["NoAgent"])
    serves = "the NMI of AAD Pod Identity serves here (DaemonSet kube-system/nmi)"
    assert outcome.not_made == (serves if ready else "")
    assert bool(list(lines(check, outcome, "utf-8"))) is not bool(ready), "no tick"


def test_the_command_finds_an_edited_role_a_lost_grant_and_an_old_definition(
    world: World, podidentity: Callable[..., Ran]
) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    role = f"{RBAC}/clusterroles/podidentity-nmi"
    whole = world.get(role)["rules"]
    rules = [{**each, "verbs": [v for v in each["verbs"] if v != "watch"]} for each in whole]
    lost = rbac.binding("x", rbac.Grantee("never-was"), rbac.Giver.ADD)
    name = "azureidentities.aadpodidentity.k8s.io"
    world.send("PATCH", role, {"rules": rules})
    world.send("POST", f"{RBAC}/clusterrolebindings", lost)
    try:
        listed = json.loads(podidentity("check", "-o", "json").out)
        found = {each["reason"]: each for each in listed}
        assert "watch azureidentities.aadpodidentity.k8s.io" in found["LacksRights"]["message"]
        assert "never-was" in found["GrantOutlives"]["message"]
        assert not {"OldDefinition", "NoDefinition"} & found.keys(), world.get(f"{CRDS}/{name}")
    finally:
        world.send("PATCH", role, {"rules": whole})
        world.send("DELETE", f"{RBAC}/clusterrolebindings/{lost['metadata']['name']}")
    again = {each["reason"] for each in json.loads(podidentity("check", "-o", "json").out)}
    assert not {"LacksRights", "GrantOutlives"} & again
