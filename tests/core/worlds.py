"""Dense random clusters: few names, so that labels, selectors and identities really meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

from hypothesis import Phase as Generate
from hypothesis import find, settings
from hypothesis import strategies as st

from podidentity.core.decision import Rules
from podidentity.core.resources import (
    Authority,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    ClientId,
    Entra,
    Federation,
    IdentityType,
    Malformed,
    ObjectRef,
    Phase,
    Pod,
    WorkloadIdentity,
)
from tests.core.objects import (
    TENANT,
    binding,
    client_id,
    exception,
    identity,
    pod,
    principal,
    record,
    resource_id,
    system,
)

_Case = TypeVar("_Case")
_FIRST = settings(phases=[Generate.generate], max_examples=5_000, database=None)


def occurs(cases: st.SearchStrategy[_Case], holds: Callable[[_Case], bool]) -> _Case:
    """Return the first of 5,000 cases, the same each time, that makes `holds` true, or fail."""
    return find(cases, holds, settings=_FIRST, random=Random(1))  # noqa: S311 - the same each time


NAMESPACES = ["blue", "green"]
SELECTORS = ["app", "App", "job"]
NAMES = ["alpha", "beta"]
NUMBERS = range(1, 4)
EVIL = Authority.parse("https://login.evil.example")
LABELS = [{"tier": "web"}, {"tier": "Web"}, {"tier": "web", "team": "a"}, {}]


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

    def malformed_bindings(self, namespace: str, selector: str) -> list[Malformed]:
        return [
            each
            for each in self.bad_bindings
            if each.ref.namespace == namespace and each.selector == selector
        ]

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

    def turned(self) -> World:
        """Return the same cluster as the API server may list it another time."""
        return World(
            self.all_bindings[::-1],
            self.identities[::-1],
            self.bad_bindings[::-1],
            self.all_exceptions[::-1],
            self.records[::-1],
            self.accounts[::-1],
        )


# Whole objects are drawn, not their fields: few draws make worlds in which much happens.


def _identities(namespace: str, name: str) -> list[AzureIdentity | Malformed | None]:
    """Return an identity of this name: of any type, good or bad, or none."""
    msi = [identity(namespace, name, number) for number in NUMBERS]
    federated = {"type": IdentityType.FEDERATED, "resource_id": None, "object_id": None}
    other = next(each for each in NAMESPACES if each != namespace)
    return [
        *msi,
        replace(msi[0], namespaced=True),
        system(namespace, name),
        principal(namespace, name),
        principal(namespace, name, authority=EVIL),
        principal(namespace, name, secret=ObjectRef(other, "secret")),
        replace(principal(namespace, name), type=IdentityType.CERTIFICATE),
        identity(namespace, name, 2, entra=_FEDERATED, **federated),
        identity(namespace, name, 3, entra=_VIA, **federated),
        Malformed(ref=ObjectRef(namespace, name), kind="AzureIdentity", why="it is bad"),
        None,
    ]


_FEDERATED = Entra(tenant=TENANT, federation=Federation())
_VIA = Entra(tenant=TENANT, federation=Federation(via=resource_id(3)))


def _accounts(namespace: str) -> list[WorkloadIdentity | Malformed | None]:
    ref = ObjectRef(namespace, "default")
    return [
        WorkloadIdentity(ref=ref, client_id=client_id(1), tenant=TENANT),
        WorkloadIdentity(ref=ref, client_id=client_id(1)),
        Malformed(ref=ref, kind="ServiceAccount", why="it is bad"),
        None,
    ]


def _records(namespace: str, name: str) -> list[AzureAssignedIdentity | None]:
    """Return records about an identity, by the controller or by a forger."""
    mine, other = (ObjectRef(each, "pod") for each in sorted(NAMESPACES, key=namespace.__ne__))
    return [
        None,
        None,
        record(namespace, name, "Assigned", pod=mine),
        record(namespace, name, "Assigned", pod=mine),
        record(namespace, name, "Created", pod=mine),
        record(namespace, name, "Assigned", pod=mine, node="n2"),
        record(namespace, name, "Assigned", pod=other),
    ]


_LISTED: list[tuple[ClientId, ...]] = [(), (client_id(2), client_id(3))]
_SHAPES = [(of, selector) for of in NAMES for selector in SELECTORS]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World()
    for namespace in NAMESPACES:
        made = [draw(st.sampled_from(_identities(namespace, name))) for name in NAMES]
        world.identities += [each for each in made if each is not None]
        told = [draw(st.sampled_from(_records(namespace, name))) for name in NAMES]
        world.records += [each for each in told if each is not None]
        shapes = draw(st.lists(st.sampled_from(_SHAPES), max_size=3))
        world.all_bindings += [
            binding(namespace, f"binding-{number}", of, selector, weight=number % 2)
            for number, (of, selector) in enumerate(shapes)
        ]
        if draw(st.booleans()):
            bad = ObjectRef(namespace, "bad")
            world.bad_bindings.append(
                Malformed(
                    ref=bad,
                    kind="AzureIdentityBinding",
                    why="it is bad",
                    selector=draw(st.sampled_from(("", *SELECTORS))),
                )
            )
        world.all_exceptions += [
            exception(namespace, f"e{number}", labels, _LISTED[number])
            for number, labels in enumerate(draw(st.lists(st.sampled_from(LABELS), max_size=2)))
        ]
        account = draw(st.sampled_from(_accounts(namespace)))
        if account is not None:
            world.accounts.append(account)
    return world


PODS = [
    pod(namespace, selector, more=labels, host_network=host, phase=phase)
    for namespace in NAMESPACES
    for selector in (*SELECTORS, *SELECTORS, "", None, None)
    for labels in LABELS
    for host, phase in [
        *[(False, Phase.RUNNING)] * 10,
        (False, Phase.PENDING),
        (False, Phase.SUCCEEDED),
        (True, Phase.RUNNING),
    ]
]
RULES = [
    Rules(
        standard=standard,
        exception_namespaces=where,
        any_label=any_label,
        cross_namespace=cross,
        foreign_secrets=foreign,
        tenant=tenant,
    )
    for where in (frozenset({"blue"}), frozenset({"green"}), frozenset[str](), None)
    for any_label in (False, True)
    for cross in (False, True)
    for foreign in (False, True)
    for standard in (False, True)
    for tenant in (None, TENANT)
]
"""All that an operator may have chosen, the compatibility switches included."""


def pods() -> st.SearchStrategy[Pod]:
    return st.sampled_from(PODS)


def rules() -> st.SearchStrategy[Rules]:
    return st.sampled_from(RULES)
