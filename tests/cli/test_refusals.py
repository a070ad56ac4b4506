"""`podidentity explain` for ten pods that get no token, letter by letter as the page shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from podidentity.core.errors import CredentialUnknown, IdentityNotAttached, TokenRefused
from podidentity.core.refusals import Reason
from podidentity.nmi.request.errors import ERRORS
from tests.cli.conftest import Ran
from tests.cli.world import CUSTOM, World
from tests.docs.blocks import ROOT, blocks_of

PAGE = ROOT / "docs/how-to/why-was-my-pod-refused.md"
SHOWN = [block for block in blocks_of(PAGE) if block.mark == "explain"]
PODS = "/api/v1/namespaces/{}/pods"
CLIENT = "11111111-1111-1111-1111-111111111111"
TENANT = "22222222-2222-2222-2222-222222222222"
ELSEWHERE = "https://login.example.com"
LABEL = "aadpodidbinding"
NAMESPACES = ("cafe", "bakery")
CUSTOM_KINDS = {
    "azureidentities": "AzureIdentity",
    "azureidentitybindings": "AzureIdentityBinding",
    "azurepodidentityexceptions": "AzurePodIdentityException",
}
NMI = "nmi-7h2kd"
COMMAND = "$ podidentity explain "


class Town:
    """Two namespaces with pods that are refused, each for a reason of its own."""

    def __init__(self, world: World) -> None:
        self.world = world

    def pod(self, name: str, labels: dict[str, str], **spec: Any) -> None:
        spec |= {"nodeName": self.world.plan.nodes[0].name}
        spec["containers"] = [{"name": "main", "image": "x"}]
        body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
        self.world.send("POST", PODS.format("cafe"), body)

    def custom(self, plural: str, name: str, spec: dict[str, Any], namespace: str = "cafe") -> None:
        body = {
            "apiVersion": "aadpodidentity.k8s.io/v1",
            "kind": CUSTOM_KINDS[plural],
            "metadata": {"name": name},
            "spec": spec,
        }
        self.world.send("POST", f"{CUSTOM}/namespaces/{namespace}/{plural}", body)

    def bound(self, name: str, **spec: Any) -> None:
        """Make an AzureIdentity, its binding and a pod, all of one name."""
        self.custom("azureidentities", name, {"clientID": CLIENT, **spec})
        self.custom("azureidentitybindings", name, {"azureIdentity": name, "selector": name})
        self.pod(name, {LABEL: name})

    def fill(self) -> None:
        """Create the pods, and the objects for which they are refused."""
        self.pod("unlabelled", {"app": "web"})
        self.pod("misspelt", {LABEL: "Menu"})
        self.pod("elsewhere", {LABEL: "bread"})
        self.custom(
            "azureidentitybindings", "bread", {"azureIdentity": "b", "selector": "bread"}, "bakery"
        )
        self.custom("azureidentitybindings", "gone", {"azureIdentity": "gone", "selector": "gone"})
        self.pod("gone", {LABEL: "gone"})
        self.bound("broken", clientID="the-menu")
        self.bound("ungranted")
        self.bound("abroad", type=1, tenantID=TENANT, adEndpoint=ELSEWHERE, **_secret("cafe"))
        self.bound("borrowed", type=1, tenantID=TENANT, **_secret("bakery"))
        annotations = {"azure.workload.identity/client-id": CLIENT}
        account = {"metadata": {"name": "annotated", "annotations": annotations}}
        self.world.send("POST", "/api/v1/namespaces/cafe/serviceaccounts", account)
        self.pod("annotated", {}, serviceAccountName="annotated")
        self.custom("azurepodidentityexceptions", "excepted", {"podLabels": {"app": "meter"}})
        self.pod("excepted", {"app": "meter"})


def _secret(namespace: str) -> dict[str, Any]:
    return {"clientPassword": {"name": "orders", "namespace": namespace}}


def pod_of(text: str) -> str:
    return text.removeprefix(COMMAND).partition("\n")[0]


@pytest.fixture(scope="module")
def town(shared_world: World) -> Iterator[Town]:
    shared_world.put_back()
    found = Town(shared_world)
    for name in NAMESPACES:
        shared_world.namespace(name)
    found.fill()
    with shared_world.kept():
        yield found


@pytest.fixture
def nmi(world: World) -> None:
    """A pod of NMI that is ready; `bare` ends it."""
    labels = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}
    world.pod("kube-system", NMI, labels)
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    world.send("PATCH", f"{PODS.format('kube-system')}/{NMI}/status", {"status": status})


@pytest.mark.usefixtures("nmi")
@pytest.mark.parametrize("text", [block.text for block in SHOWN], ids=pod_of)
def test_explain_says_what_the_page_shows(
    town: Town, podidentity: Callable[..., Ran], text: str
) -> None:
    del town
    ran = podidentity("explain", pod_of(text))
    assert f"{COMMAND}{pod_of(text)}\n{ran.out}" == text
    assert (ran.code, ran.err) == (1, "")


def test_the_page_shows_ten_refusals_and_ends_each_with_another_reason() -> None:
    reasons = {reason for reason in Reason for block in SHOWN if f"({reason})" in block.text}
    assert len(SHOWN) == len(reasons) == 10


def test_the_page_names_every_reason_that_the_log_may_have() -> None:
    refused = (TokenRefused, IdentityNotAttached, CredentialUnknown)
    kinds = {kind.__name__ for kind in (*ERRORS, *refused)} - {"TokenUnavailable"}
    text = PAGE.read_text()
    assert [reason for reason in [*Reason, *kinds] if f"`{reason}`" not in text] == []
