"""A shared control plane is as new when it was put back: for etcd and for each program."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity import manifests
from tests.kubernetes.control_plane import NEWEST_FOLDER, ControlPlane, control_plane, wait_until

DAEMON_SETS = "/apis/apps/v1/namespaces/default/daemonsets"
PODS = "/api/v1/namespaces/default/pods"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MAPS = "/api/v1/namespaces/default/configmaps"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@pytest.fixture
def plane() -> ControlPlane:
    found = control_plane(NEWEST_FOLDER)
    found.put_back(found.beginning)
    return found


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **more}


def test_keys_are_what_they_were_made_changed_or_deleted(plane: ControlPlane) -> None:
    before = plane.state().values
    plane.ask("POST", MAPS, named("made"))
    plane.ask("DELETE", f"{RBAC}/clusterroles/edit")
    plane.ask("POST", "/api/v1/namespaces", named("made"))
    assert plane.state().values != before
    plane.put_back(plane.beginning)
    assert plane.state().values == before
    assert plane.answer("GET", f"{RBAC}/clusterroles/edit")[0] == 200


def test_a_right_is_gone_at_once(plane: ControlPlane) -> None:
    subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}
    role = {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "view"}
    asked = {"spec": {"user": "jane", "resourceAttributes": {"verb": "list", "resource": "pods"}}}

    def allowed() -> bool:
        return bool(plane.ask("POST", REVIEWS, asked)["status"]["allowed"])

    for _ in range(5):
        made = named("jane", roleRef=role, subjects=[subject])
        plane.ask("POST", f"{RBAC}/clusterrolebindings", made)
        wait_until(allowed)
        plane.put_back(plane.beginning)
        assert not allowed()


def test_a_policy_refuses_nothing_any_more(plane: ControlPlane) -> None:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["configmaps"],
    }
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.metadata.name != 'wrong'"}],
    }
    bound = {"policyName": "maps", "validationActions": ["Deny"]}
    plane.ask("POST", f"{ADMISSION}/validatingadmissionpolicies", named("maps", spec=spec))
    plane.ask("POST", f"{ADMISSION}/validatingadmissionpolicybindings", named("maps", spec=bound))
    wait_until(lambda: plane.answer("POST", f"{MAPS}?dryRun=All", named("wrong"))[0] == 422)
    plane.put_back(plane.beginning)
    assert plane.answer("POST", f"{MAPS}?dryRun=All", named("wrong"))[0] == 201


def test_a_policy_that_the_test_itself_deleted_refuses_nothing_any_more(
    plane: ControlPlane,
) -> None:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["configmaps"],
    }
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.metadata.name != 'wrong'"}],
    }
    bound = {"policyName": "maps", "validationActions": ["Deny"]}
    kinds = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
    for kind, of in zip(kinds, (spec, bound), strict=True):
        plane.ask("POST", f"{ADMISSION}/{kind}", named("maps", spec=of))
    wait_until(lambda: plane.answer("POST", f"{MAPS}?dryRun=All", named("wrong"))[0] == 422)
    for kind in kinds:
        plane.ask("DELETE", f"{ADMISSION}/{kind}/maps")
    plane.put_back(plane.beginning)
    assert plane.answer("POST", f"{MAPS}?dryRun=All", named("wrong"))[0] == 201


def test_kinds_are_served_no_more_and_again(plane: ControlPlane) -> None:
    path = "/apis/aadpodidentity.k8s.io/v1"
    for each in manifests.crds():
        plane.ask("POST", CRDS, each)
    # A definition whose names are accepted, but that is not yet established, would stay so.
    kinds = [each["spec"]["names"]["plural"] for each in manifests.crds()]
    plane.wait_until_served("aadpodidentity.k8s.io", kinds)
    there = plane.state()
    for _ in range(3):
        plane.put_back(plane.beginning)
        assert plane.answer("GET", path)[0] == 404
        plane.put_back(there)
        assert plane.ask("GET", f"{path}/azureidentities")["items"] == []


def test_no_controller_goes_on_with_what_is_gone(plane: ControlPlane) -> None:
    """It would make a pod of a DaemonSet that another test never had."""
    plane.ask("POST", "/api/v1/nodes", named("node-0"))
    with_node = plane.state()
    labels = {"app": "agent"}
    container = {"name": "c", "image": "none"}
    everywhere = [{"operator": "Exists"}]
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "tolerations": everywhere},
    }
    spec = {"selector": {"matchLabels": labels}, "template": template}
    for _ in range(10):
        plane.ask("POST", DAEMON_SETS, named("agent", spec=spec))
        plane.put_back(with_node)
        assert plane.ask("GET", PODS)["items"] == []
    plane.ask("POST", DAEMON_SETS, named("agent", spec=spec))
    wait_until(lambda: plane.ask("GET", PODS)["items"] != [])
    plane.put_back(plane.beginning)
    assert plane.ask("GET", PODS)["items"] == []
