"""Before a take-over: what would be refused is listed, granted, and taken back again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from podidentity import manifests
from podidentity.adapters.kube import Kube
from podidentity.cli import main
from podidentity.cli.migrate import is_namespaced
from podidentity.wire import rbac
from podidentity.wire.kube import KubeError
from tests.cli.conftest import Ran
from tests.cli.test_grants import may
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
def client() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def shop(world: World, ns: str, client: str) -> str:
    """A namespace with a pod that AAD Pod Identity serves, and no permission."""
    bound(world, ns, "orders", client)
    world.pod(ns, "web", {"aadpodidbinding": "orders"})
    return ns


def bound(world: World, ns: str, name: str, client: str, **spec: Any) -> None:
    world.custom(ns, "azureidentities", name, {"type": 0, "clientID": client, **spec})
    binding = {"azureIdentity": name, "selector": name}
    world.custom(ns, "azureidentitybindings", f"{name}-binding", binding)


def refused(run: Run, ns: str) -> list[Any]:
    """Return what the plan lists for a namespace."""
    ran = run("migrate", "plan", "-n", ns, "-o", "json")
    assert ran.err == ""
    found = json.loads(ran.out)["refused"]
    assert ran.code == (1 if found else 0)
    return list(found)


def there(world: World, client: str) -> set[str]:
    """Return the names of the roles and bindings of an identity."""
    return {
        each["metadata"]["name"]
        for kind in ("clusterroles", "clusterrolebindings")
        for each in world.send("GET", f"{RBAC}/{kind}")["items"]
        if client in each["metadata"]["name"]
    }


def test_the_plan_names_pods_and_the_grant_and_changes_nothing(
    world: World, shop: str, client: str, podidentity: Run
) -> None:
    (found,) = refused(podidentity, shop)
    command = f"podidentity grant --namespace {shop} --identity {client}"
    assert found == {
        "namespace": shop,
        "about": f"{shop}/orders",
        "reason": "NotPermitted",
        "message": f"Pods of namespace {shop} may not use AzureIdentity {shop}/orders: nobody has "
        f"granted {client}.",
        "nextStep": f"An operator grants it: {command}.",
        "pods": ["web"],
        "switches": [],
        "grants": [{"identity": client, "command": command}],
    }
    said = podidentity("migrate", "plan", "-n", shop).out
    assert said.startswith(f"{shop}: {shop}/orders (NotPermitted), pods web\n")
    assert f"  to grant: {command}\n" in said
    assert "podidentity migrate apply grants 1 permissions." in said
    assert there(world, client) == set()


def test_pods_of_the_nodes_network_are_listed_where_the_archived_mic_attaches_for_them(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    """The archived MIC looks at no hostNetwork, and ours does."""
    resource_id = (
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity"
        "/userAssignedIdentities/orders"
    )
    bound(world, ns, "orders", client, resourceID=resource_id)
    podidentity("grant", "-n", ns, "--identity", client)
    spec = {"hostNetwork": True, "containers": [{"name": "main", "image": "x"}]}
    body = {"metadata": {"name": "agent", "labels": {"aadpodidbinding": "orders"}}, "spec": spec}
    world.send("POST", f"/api/v1/namespaces/{ns}/pods", body)
    assert refused(podidentity, ns) == [], "no archived MIC attaches anything"
    labels = {"component": "mic", "k8s-app": "aad-pod-id"}
    mic = manifests.mic()[-1]
    mic["metadata"] |= {"name": "mic", "namespace": "default", "labels": labels}
    mic["spec"]["selector"]["matchLabels"] = labels
    mic["spec"]["template"]["metadata"]["labels"] = labels
    world.send("POST", DEPLOYMENTS, mic)
    right = world.bind("aad-pod-id-mic-role", "default", "podidentity-mic")
    try:
        (found,) = refused(podidentity, ns)
        assert (found["reason"], found["pods"]) == ("HostNetwork", ["agent"])
        assert f"attach {resource_id} to each machine yourself" in found["nextStep"]
    finally:
        world.send("DELETE", f"{DEPLOYMENTS}/mic")
        world.send("DELETE", right)


def test_what_is_granted_is_not_listed_and_a_rollback_takes_back_exactly_that(
    world: World, shop: str, client: str, podidentity: Run
) -> None:
    by_hand = str(uuid.uuid4())
    bound(world, shop, "mail", by_hand)
    podidentity("grant", "-n", shop, "--identity", by_hand)
    assert [each["about"] for each in refused(podidentity, shop)] == [f"{shop}/orders"]

    ran = podidentity("migrate", "apply", "-n", shop, "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert "Granted 1 permissions." in ran.out
    assert may(world, shop, "web", client)
    assert refused(podidentity, shop) == []
    again = podidentity("migrate", "apply", "-n", shop, "--yes")
    assert again.out.startswith("No permission is missing.")

    assert podidentity("migrate", "rollback", "--yes").code == 0
    assert there(world, client) == set()
    assert not may(world, shop, "web", client)
    assert may(world, shop, "web", by_hand), "what somebody has granted himself stays"
    assert podidentity("migrate", "rollback", "--yes").out == "Took 0 permissions back.\n"


def test_interrupted_it_goes_on_where_it_was(
    world: World, shop: str, client: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server is gone after so many writes."""
    other = str(uuid.uuid4())
    bound(world, shop, "mail", other)
    create, left = Kube.create, [0]

    async def until_it_is_gone(self: Kube, path: str, body: Any) -> Any:
        if not left[0]:
            raise KubeError("gone")
        left[0] -= 1
        return await create(self, path, body)

    monkeypatch.setattr(Kube, "create", until_it_is_gone)
    codes = []
    for writes in (1, 2, 3):
        left[0] = writes
        codes.append(podidentity("migrate", "apply", "-n", shop, "--yes").code)
    assert codes == [1, 1, 0], "a role, then its binding, then the rest"
    assert may(world, shop, "web", client)
    assert may(world, shop, "web", other)
    assert podidentity("migrate", "rollback", "--yes").code == 0
    assert there(world, client) | there(world, other) == set()


def test_a_rollback_takes_roles_that_an_interruption_left_without_a_binding(
    world: World, shop: str, client: str, podidentity: Run
) -> None:
    podidentity("migrate", "apply", "-n", shop, "--yes")
    world.send("DELETE", f"{RBAC}/clusterrolebindings/podidentity-use-{client}:{shop}")
    assert there(world, client) == {f"podidentity-use-{client}"}
    podidentity("migrate", "rollback", "--yes")
    assert there(world, client) == set()


def test_what_grant_has_granted_since_stays_and_so_does_a_role_that_was_there(
    world: World, shop: str, client: str, podidentity: Run
) -> None:
    podidentity("migrate", "apply", "-n", shop, "--yes")
    podidentity("grant", "-n", shop, "--identity", client)
    podidentity("migrate", "rollback", "--yes")
    assert may(world, shop, "web", client)
    podidentity("revoke", "-n", shop, "--identity", client)

    world.send("POST", f"{RBAC}/clusterroles", rbac.role(client))
    podidentity("migrate", "apply", "-n", shop, "--yes")
    assert may(world, shop, "web", client)
    podidentity("migrate", "rollback", "--yes")
    assert there(world, client) == {f"podidentity-use-{client}"}
    world.send("DELETE", f"{RBAC}/clusterroles/podidentity-use-{client}")


def test_a_role_or_binding_of_that_name_that_says_something_else_is_not_used(
    world: World, shop: str, client: str, podidentity: Run
) -> None:
    """Else a grant of one identity would be that of whatever somebody wrote there."""
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    name = f"podidentity-use-{client}"
    world.send("POST", f"{RBAC}/clusterroles", {**rbac.role(client), "rules": [everything]})
    ran = podidentity("migrate", "apply", "-n", shop, "--yes")
    assert ran.code == 1
    assert f"{name} is there, and permits something else" in ran.err
    assert there(world, client) == {name}
    world.send("DELETE", f"{RBAC}/clusterroles/{name}")

    elsewhere = rbac.binding(client, rbac.Grantee(shop), rbac.Giver.GRANT)
    elsewhere["subjects"][0]["name"] = "system:serviceaccounts:nobody"
    world.send("POST", f"{RBAC}/clusterrolebindings", elsewhere)
    ran = podidentity("migrate", "apply", "-n", shop, "--yes")
    assert ran.code == 1
    assert f"is there, and does not permit it to namespace {shop}" in ran.err
    world.send("DELETE", f"{RBAC}/clusterrolebindings/{name}:{shop}")
    podidentity("migrate", "rollback", "--yes")


def test_nothing_is_granted_unless_somebody_says_yes(world: World, shop: str, client: str) -> None:
    shell = CliRunner(env=dict(world.environment))
    ran = shell.invoke(main.podidentity, ["migrate", "apply", "-n", shop], input="n\n")
    assert ran.exit_code != 0
    assert f"namespace {shop} may use {client}" in ran.output
    assert there(world, client) == set()


def test_what_needs_a_switch_says_what_that_opens(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    """An identity of another namespace, an exception, and a secret that is elsewhere."""
    elsewhere = world.namespace(f"n-{uuid.uuid4().hex[:8]}")
    selector = f"s-{ns}"
    world.custom(elsewhere, "azureidentities", "far", {"clientID": client})
    binding = {"azureIdentity": "far", "selector": selector}
    world.custom(elsewhere, "azureidentitybindings", "far", binding)
    world.pod(ns, "web", {"aadpodidbinding": selector})
    bound(
        world,
        ns,
        "mail",
        client,
        type=1,
        tenantID="contoso.com",
        clientPassword={"name": "mail", "namespace": elsewhere},
        adEndpoint="https://login.contoso.example/",
    )
    path = f"{CUSTOM}/namespaces/{ns}/azurepodidentityexceptions"
    body = {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzurePodIdentityException",
        "metadata": {"name": "addon"},
        "spec": {"podLabels": {"app": "addon"}},
    }
    world.send("POST", path, body)
    ran = podidentity("migrate", "plan", "-n", ns, "-o", "json")
    found = json.loads(ran.out)
    wanted = [
        "--compat-cross-namespace",
        "--compat-foreign-secrets",
        f"--exception-namespaces=kube-system,{ns}",
        "--authorities=https://login.contoso.example",
    ]
    assert found["flags"] == wanted
    by_reason = {each["reason"]: each for each in found["refused"]}
    assert by_reason.keys() == {"OtherNamespace", "UnknownAuthority", "ExceptionIgnored"}
    assert by_reason["OtherNamespace"]["grants"][0]["identity"] == client
    said = " ".join(podidentity("migrate", "plan", "-n", ns).out.split())
    assert f"with {wanted[0]}: whoever may make an AzureIdentityBinding anywhere" in said
    assert f"podidentity enable {' '.join(f'--nmi-arg={each}' for each in wanted)}" in said
    assert f"Create the AzureIdentity and its binding in namespace {ns}." in said

    told = podidentity("migrate", "plan", "-n", ns, "--archived-namespaced", "-o", "json").out
    assert "OtherNamespace" not in told, "nobody had what is elsewhere"
    ran = podidentity("migrate", "apply", "-n", ns, "--yes")
    assert "3 losses need more than a permission" in ran.err
    podidentity("migrate", "rollback", "--yes")
    for plural in ("azureidentities", "azureidentitybindings"):
        world.send("DELETE", f"{CUSTOM}/namespaces/{elsewhere}/{plural}")
    world.send("DELETE", f"{path}/addon")


def daemon_set(*args: str, component: str = "nmi", **env: str) -> dict[str, Any]:
    container = {
        "name": "nmi",
        "args": list(args),
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }
    labels = {"app.kubernetes.io/component": component}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"metadata": {"name": "nmi"}, "spec": {"template": template}}


@pytest.mark.parametrize(
    ("found", "namespaced"),
    [
        ([], False),
        ([daemon_set()], False),
        ([daemon_set("--node=$(NODE_NAME)", "--forceNamespaced")], True),
        ([daemon_set("--forceNamespaced=true")], True),
        ([daemon_set("--forceNamespaced=false", FORCENAMESPACED="true")], False),
        ([daemon_set(FORCENAMESPACED="true")], True),
        ([daemon_set(FORCENAMESPACED="false")], False),
        ([daemon_set("--forceNamespaced"), daemon_set()], False),
        ([daemon_set("--forceNamespaced"), daemon_set(component="other")], True),
    ],
)
def test_whether_the_archived_nmi_keeps_to_namespaces_is_read_from_its_flags(
    found: list[dict[str, Any]], namespaced: bool
) -> None:
    assert is_namespaced(found) is namespaced
