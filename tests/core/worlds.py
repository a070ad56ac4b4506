"""Dense random clusters: few names, so that labels, selectors and identities really meet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from podidentity.core.ids import ClientId, ObjectId, ObjectRef, ResourceId
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    IdentityType,
    Malformed,
    Phase,
    Pod,
    WorkloadIdentity,
)

NAMESPACES = ["blue", "green"]
SELECTORS = ["app", "App", "job"]
NAMES = ["alpha", "beta"]
NUMBERS = range(1, 4)


def client_id(number: int) -> ClientId:
    return ClientId.parse(f"00000000-0000-0000-0000-00000000000{number}")


def object_id(number: int) -> ObjectId:
    return ObjectId.parse(f"10000000-0000-0000-0000-00000000000{number}")


def resource_id(number: int, group: str = "G") -> ResourceId:
    return ResourceId.parse(
        f"/subscriptions/s/resourceGroups/{group}/providers"
        f"/Microsoft.ManagedIdentity/userAssignedIdentities/id-{number}"
    )


def identity(namespace: str, name: str, number: int = 1) -> AzureIdentity:
    return AzureIdentity(
        ref=ObjectRef(namespace, name),
        type=IdentityType.USER_ASSIGNED,
        client_id=client_id(number),
        resource_id=resource_id(number),
        object_id=object_id(number),
    )


def binding(
    namespace: str, name: str, of: str, selector: str, weight: int = 0
) -> AzureIdentityBinding:
    return AzureIdentityBinding(
        ref=ObjectRef(namespace, name), identity=of, selector=selector, weight=weight
    )


def pod(namespace: str = "blue", selector: str | None = "app", **facts: object) -> Pod:
    labels = {} if selector is None else {BINDING_LABEL: selector}
    known: dict[str, object] = {
        "ref": ObjectRef(namespace, "pod"),
        "uid": "uid",
        "labels": labels,
        "addresses": ("10.244.0.2",),
    }
    return Pod(**(known | facts))  # type: ignore[arg-type]


@dataclass
class World:
    """A cluster as plain lists, which answers as a Directory by reading all of them."""

    all_bindings: list[AzureIdentityBinding] = field(default_factory=list)
    identities: list[AzureIdentity | Malformed] = field(default_factory=list)
    bad_bindings: list[Malformed] = field(default_factory=list)
    all_exceptions: list[AzurePodIdentityException] = field(default_factory=list)
    records: list[AzureAssignedIdentity] = field(default_factory=list)
    accounts: list[WorkloadIdentity | Malformed] = field(default_factory=list)

    def bindings(self, namespace: str, selector: str) -> list[AzureIdentityBinding]:
        return [
            each
            for each in self.all_bindings
            if each.ref.namespace == namespace and each.selector == selector
        ]

    def malformed_bindings(self, namespace: str) -> list[Malformed]:
        return [each for each in self.bad_bindings if each.ref.namespace == namespace]

    def identity(self, ref: ObjectRef) -> AzureIdentity | Malformed | None:
        return next((each for each in self.identities if each.ref == ref), None)

    def namespaces_with(self, selector: str) -> list[str]:
        found = {each.ref.namespace for each in self.all_bindings if each.selector == selector}
        return sorted(found)

    def exceptions(self, namespace: str) -> list[AzurePodIdentityException]:
        return [each for each in self.all_exceptions if each.ref.namespace == namespace]

    def assigned(self, pod: ObjectRef) -> list[AzureAssignedIdentity]:
        return [each for each in self.records if each.pod == pod]

    def workload_identity(self, service_account: ObjectRef) -> WorkloadIdentity | Malformed | None:
        return next((each for each in self.accounts if each.ref == service_account), None)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World()
    for namespace in NAMESPACES:
        for name in NAMES:
            kind = draw(st.sampled_from(["good", "good", "good", "unserved", "bad", "none"]))
            if kind in {"good", "unserved"}:
                made = identity(namespace, name, draw(st.sampled_from(NUMBERS)))
                served = kind == "good"
                kind_of = IdentityType.USER_ASSIGNED if served else IdentityType.FEDERATED
                world.identities.append(replace(made, type=kind_of))
            elif kind == "bad":
                world.identities.append(
                    Malformed(ref=ObjectRef(namespace, name), kind="AzureIdentity", why="it is bad")
                )
        for number in range(draw(st.integers(0, 3))):
            world.all_bindings.append(
                binding(
                    namespace,
                    f"binding-{number}",
                    draw(st.sampled_from(NAMES)),
                    draw(st.sampled_from(SELECTORS)),
                    draw(st.integers(-1, 1)),
                )
            )
        if draw(st.booleans()):
            world.bad_bindings.append(
                Malformed(
                    ref=ObjectRef(namespace, "bad"), kind="AzureIdentityBinding", why="it is bad"
                )
            )
    return world


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    return pod(
        draw(st.sampled_from(NAMESPACES)),
        draw(st.sampled_from([*SELECTORS, *SELECTORS, "", None])),
        host_network=draw(st.sampled_from([False, False, False, True])),
        phase=draw(st.sampled_from([Phase.RUNNING, Phase.PENDING, Phase.SUCCEEDED])),
    )
