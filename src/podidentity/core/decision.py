"""Who gets which identity: the whole decision on a token request, except its token.

A request is decided in three steps: `match` finds the identities that the pod may use, and for each
that it may not, why; `select` chooses those that answer the request; and each of them needs the
permission of the pod's service account. `decide` takes the last two. The same functions answer a
request, fill a log line and print `podidentity explain`.

Three ways lead to an identity, and the first that applies is taken:

* an AzurePodIdentityException of the pod's namespace: the node's own IMDS answers the pod, within
  the exception's list of identities. An exception takes a pod out of pod identity, so it counts
  only in the operator's namespaces, and the pod must carry all of its labels;
* the label `aadpodidbinding`: label → binding → identity, all three in the pod's own namespace;
* without that label, the pod's service account, annotated for azure-workload-identity.

Any tenant can write an AzureIdentity, and its authority and secret decide where a secret is sent:
both are checked here, before the identity becomes an entitlement.

A request that names an id gets that identity or a refusal, never another one. A request that names
none gets the identity of the heaviest binding, then of the first name, the same each time
(`by_weight`); with `Ambiguity.REJECT` it is refused if the pod has several, as IMDS does.

The permission is RBAC of the cluster, because an AzureIdentity is only a request: its author can
write any client id into it. It is the verb `use` on the resource `azureidentities` of group
`aadpodidentity.k8s.io`, granted cluster-wide, so that the owner of a namespace cannot grant it by a
Role. The resource's name is the client id (without one the ARM id, in lower case), or
`system-assigned` for the node's own identity. Two entitlements need no permission: a service
account annotated for azure-workload-identity, because Entra itself decides on it, and an exception,
because it counts only in the operator's namespaces.

These functions do not ask the cluster. If its RBAC is not known yet, the decision is the question;
the caller asks it and decides again.

https://azure.github.io/aad-pod-identity/docs/configure/application_exception/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import nsmallest
from itertools import islice
from typing import NamedTuple, Protocol

from podidentity.core.authorities import KNOWN_AUTHORITIES
from podidentity.core.errors import InvalidRequest
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    BINDING_LABEL,
    SYSTEM_ASSIGNED,
    Assignment,
    Authority,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    ClientId,
    Entra,
    Federation,
    Grant,
    IdentityType,
    Malformed,
    ObjectRef,
    Pod,
    ResourceId,
    Tenant,
    TokenRequest,
    WorkloadIdentity,
)

MOST_TRIED = 20
"""Exceptions without effect of a namespace that are compared with a pod."""
_FEW_LABELS = 4
MOST_BOUND = 500
"""Bindings of one selector that count, the heaviest first: ten thousand of one tenant would cost
milliseconds for each request on the node."""
MOST_NAMED = 10
"""Identities that one message names; a namespace may have thousands."""
MOST_TRIED = MOST_NAMED
"""Identities whose permission is checked for one request: a namespace may bind thousands."""

NOT_FOUND = "Identity not found"
"""IMDS's words for an identity that its machine does not have.
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling
"""

GROUP = "aadpodidentity.k8s.io"
RESOURCE = "azureidentities"
VERB = "use"


# What the rules read: the objects, and what the operator chose.


class Directory(Protocol):
    """The cluster's objects that the rules read."""

    def bindings(self, namespace: str, selector: str) -> Sequence[AzureIdentityBinding]:
        """Return the bindings of a namespace with exactly this selector, in any order.

        Of more than MOST_BOUND the heaviest (`by_weight`) are enough.
        """

    def malformed_bindings(self, namespace: str, selector: str) -> Sequence[Malformed]:
        """Return the bindings of a namespace that cannot be used and say this selector.

        "" stands for those that say none.
        """

    def identity(self, ref: ObjectRef) -> AzureIdentity | Malformed | None:
        """Return the identity of that name, or why it cannot be used, or None."""

    def namespaces_with(self, selector: str) -> Sequence[str]:
        """Return the namespaces that have a binding with this selector, sorted."""

    def exceptions(self, namespace: str) -> Sequence[AzurePodIdentityException]:
        """Return the exceptions of a namespace, in any order."""

    def assigned(self, pod: ObjectRef) -> Sequence[AzureAssignedIdentity]:
        """Return the controller's records about a pod, in any order."""

    def workload_identity(self, service_account: ObjectRef) -> WorkloadIdentity | Malformed | None:
        """Return the workload identity of an annotated service account; None for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The operator's choices that change the rules; strict by default.

    The `--compat-*` flags bring back rules of the archived project.
    """

    standard: bool = False
    """Wait for the controller's record that an identity is attached to the node."""
    exception_namespaces: frozenset[str] | None = frozenset({"kube-system"})
    """Namespaces in which an AzurePodIdentityException has effect; None: all (compat)."""
    any_label: bool = False
    """One label of an exception is enough, in any case (compat)."""
    cross_namespace: bool = False
    """Bindings and identities of other namespaces count (compat)."""
    foreign_secrets: bool = False
    """Secrets of other namespaces are read (compat)."""
    authorities: frozenset[Authority] = KNOWN_AUTHORITIES
    """Authorities to which a secret may be sent."""
    tenant: Tenant | None = None
    """Tenant of service accounts that name none."""


STRICT = Rules()


# What is found.


class Basis(StrEnum):
    """The kind of object that entitles a pod; values are stable, for logs and metrics."""

    BINDING = "binding"
    SERVICE_ACCOUNT = "service-account"
    EXCEPTION = "exception"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """An identity that a pod may use, and the object that entitles it."""

    identity: AzureIdentity
    basis: Basis = Basis.BINDING
    binding: AzureIdentityBinding | None = None
    """Set only for Basis.BINDING."""
    awaited: Refusal | None = None
    """The refusal that holds until the identity is on the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The identities that a pod may use, best first: highest weight, then the identity's name."""

    pod: Pod
    bindings: tuple[AzureIdentityBinding, ...] = ()
    """The bindings that select the pod, usable or not."""
    entitlements: tuple[Entitlement, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """Why other identities, or all of them, are refused; the pod is told the first one."""
    exception: AzurePodIdentityException | None = None
    """The node's IMDS answers the pod, within the identities of this exception."""


# Which identities a pod may use.


def match(
    pod: Pod, directory: Directory, rules: Rules = STRICT, *, most: int = MOST_BOUND
) -> Match:
    """Return the match of `pod`: an exception, entitlements or refusals, at least one of them.

    Of its bindings the heaviest count, `most` of them.
    """
    closed = _refuse_always(pod)
    if closed is not None:
        return Match(pod=pod, refusals=(closed,))
    exceptions = directory.exceptions(pod.ref.namespace)
    found = exception_of(pod, exceptions, rules)
    if found is not None:
        return Match(pod=pod, exception=found)
    if pod.selector:
        return _by_label(pod, directory, rules, most)
    return _by_service_account(pod, directory, rules, exceptions)


def _by_label(pod: Pod, directory: Directory, rules: Rules, most: int) -> Match:
    bindings = tuple(nsmallest(most, _bindings(pod, directory, rules), key=by_weight))
    records = tuple(directory.assigned(pod.ref)) if rules.standard else ()
    entitled: dict[ObjectRef, Entitlement] = {}
    refusals: list[Refusal] = []
    for binding in bindings:
        found = directory.identity(ObjectRef(binding.ref.namespace, binding.identity))
        refusal = unusable(binding, found, pod, rules)
        if refusal is not None:
            refusals.append(_without_foreign_details(refusal, binding, pod))
        elif isinstance(found, AzureIdentity) and found.ref not in entitled:
            # Of two bindings of one identity the first counts: it is the heavier one.
            awaited = None
            if rules.standard:
                record = assignment(records, pod, found.ref)
                awaited = _refuse_unassigned(pod, found, record)
            entitled[found.ref] = Entitlement(identity=found, binding=binding, awaited=awaited)
    if not bindings:
        refusals.append(_no_binding(pod, directory))
    return Match(
        pod=pod,
        bindings=bindings,
        entitlements=tuple(entitled.values()),
        refusals=tuple(refusals),
    )


def _bindings(pod: Pod, directory: Directory, rules: Rules) -> Iterable[AzureIdentityBinding]:
    if not rules.cross_namespace:
        return directory.bindings(pod.ref.namespace, pod.selector)
    return (
        binding
        for namespace in directory.namespaces_with(pod.selector)
        for binding in directory.bindings(namespace, pod.selector)
    )


def _without_foreign_details(refusal: Refusal, binding: AzureIdentityBinding, pod: Pod) -> Refusal:
    """Return `refusal` with a text for the pod that names nothing of another namespace."""
    if refusal.told or binding.ref.namespace == pod.ref.namespace:
        return refusal
    told = "An identity of another namespace that is bound to the pod cannot be used."
    return replace(refusal, told=told)


def by_weight(binding: AzureIdentityBinding) -> tuple[int, str, ObjectRef]:
    """Return the sort key of a binding: the heaviest first, then the identity's name."""
    return (-binding.weight, binding.identity, binding.ref)


def _by_service_account(
    pod: Pod, directory: Directory, rules: Rules, exceptions: Sequence[AzurePodIdentityException]
) -> Match:
    account = ObjectRef(pod.ref.namespace, pod.service_account)
    found = directory.workload_identity(account)
    if found is None:
        idle = ineffective_exception(pod, exceptions, rules)
        return Match(pod=pod, refusals=(idle or _no_label(pod),))
    if isinstance(found, Malformed):
        return Match(pod=pod, refusals=(malformed(found),))
    tenant = found.tenant or rules.tenant
    if tenant is None:
        return Match(pod=pod, refusals=(_no_tenant(account),))
    identity = AzureIdentity(
        ref=account,
        type=IdentityType.FEDERATED,
        client_id=found.client_id,
        entra=Entra(tenant=tenant, federation=Federation()),
    )
    return Match(
        pod=pod, entitlements=(Entitlement(identity=identity, basis=Basis.SERVICE_ACCOUNT),)
    )


def exception_of(
    pod: Pod, exceptions: Sequence[AzurePodIdentityException], rules: Rules
) -> AzurePodIdentityException | None:
    """Return the exception that has effect on `pod`, the first by name, if there is one."""
    if not exceptions or not _is_allowed(pod.ref.namespace, rules):
        return None
    return _first_fitting(pod, exceptions, rules)


def _is_allowed(namespace: str, rules: Rules) -> bool:
    return rules.exception_namespaces is None or namespace in rules.exception_namespaces


def ineffective_exception(
    pod: Pod, exceptions: Sequence[AzurePodIdentityException], rules: Rules
) -> Refusal | None:
    """Return the refusal of a pod whose only exception has no effect; None if it has none.

    A tenant may make thousands of exceptions where none counts, so the first few by name are tried.
    """
    few = exceptions
    if len(exceptions) > MOST_TRIED and not _is_allowed(pod.ref.namespace, rules):
        few = nsmallest(MOST_TRIED, exceptions, key=_exception_name)
    found = _first_fitting(pod, few, rules)
    return None if found is None else _refuse_ineffective(found, rules)


def as_it_counts(
    exception: AzurePodIdentityException, namespaces: frozenset[str] | None
) -> AzurePodIdentityException:
    """Return what NMI keeps of an exception; `namespaces` are those in which exceptions count.

    Of one that cannot count the name is kept, and a few labels, so that its pods are told why.
    """
    if namespaces is None or exception.ref.namespace in namespaces:
        return exception
    labels = exception.pod_labels if len(exception.pod_labels) <= _FEW_LABELS else {}
    return replace(exception, pod_labels=labels, identities=())


def without_effect(exception: AzurePodIdentityException, rules: Rules) -> Refusal | None:
    """Return why `exception` has no effect in its namespace; None if it has."""
    if _is_allowed(exception.ref.namespace, rules):
        return None
    return _refuse_ineffective(exception, rules)


def _refuse_ineffective(found: AzurePodIdentityException, rules: Rules) -> Refusal:
    namespaces = sorted({*(rules.exception_namespaces or ()), found.ref.namespace})
    return Refusal(
        reason=Reason.EXCEPTION_IGNORED,
        message=f"AzurePodIdentityException {found.ref} has no effect in its namespace.",
        next_step="Bind an identity to the pod, or have the operator start NMI with "
        f"--exception-namespaces={','.join(namespaces)}.",
        about=found.ref,
        told=NOT_FOUND,
    )


def _first_fitting(
    pod: Pod, exceptions: Sequence[AzurePodIdentityException], rules: Rules
) -> AzurePodIdentityException | None:
    fits = _any if rules.any_label else _all
    return next((each for each in sorted(exceptions, key=_exception_name) if fits(pod, each)), None)


def _exception_name(exception: AzurePodIdentityException) -> str:
    return exception.ref.name


def _all(pod: Pod, exception: AzurePodIdentityException) -> bool:
    wanted = exception.pod_labels
    return bool(wanted) and all(pod.labels.get(key) == value for key, value in wanted.items())


def _any(pod: Pod, exception: AzurePodIdentityException) -> bool:
    """Match as the archived project: one label with an equal value, in any case."""
    labels = pod.labels
    return any(
        key in labels and labels[key].lower() == value.lower()
        for key, value in exception.pod_labels.items()
    )


def unusable(
    binding: AzureIdentityBinding, found: AzureIdentity | Malformed | None, pod: Pod, rules: Rules
) -> Refusal | None:
    """Return why `pod` cannot use the identity of `binding`; None if it can."""
    if found is None:
        return Refusal(
            reason=Reason.NO_IDENTITY,
            message=f"AzureIdentityBinding {binding.ref} names AzureIdentity "
            f"{binding.identity!r}, which does not exist in namespace {binding.ref.namespace}.",
            next_step="Create that AzureIdentity, or correct the binding's spec.azureIdentity.",
            about=binding.ref,
        )
    if isinstance(found, Malformed):
        return malformed(found)
    if found.namespaced and found.ref.namespace != pod.ref.namespace:
        return Refusal(
            reason=Reason.OTHER_NAMESPACE,
            message=f"AzureIdentity {found.ref} is for pods of its own namespace only.",
            next_step=f"Run the pod in namespace {found.ref.namespace}.",
            about=found.ref,
            told=f"No AzureIdentity of namespace {pod.ref.namespace} is bound to the pod.",
        )
    return unusable_credential(found, rules)


def malformed(found: Malformed) -> Refusal:
    return Refusal(
        reason=Reason.MALFORMED_IDENTITY,
        message=f"{found.kind} {found.ref} cannot be used: {found.why}.",
        next_step=f"Make it smaller, or delete what namespace {found.ref.namespace} does not need."
        if found.left_out
        else f"Correct {found.kind} {found.ref}.",
        about=found.ref,
    )


def malformed_binding(found: Malformed) -> Refusal:
    return replace(malformed(found), reason=Reason.MALFORMED_BINDING)


def unusable_credential(identity: AzureIdentity, rules: Rules) -> Refusal | None:
    """Return why the authority or the secret of `identity` cannot be used; None if they can."""
    entra = identity.entra
    if entra is None:
        return None
    if entra.authority is not None and entra.authority not in rules.authorities:
        return Refusal(
            reason=Reason.UNKNOWN_AUTHORITY,
            message=f"AzureIdentity {identity.ref} names the authority {entra.authority}, which is "
            "none of Azure's.",
            next_step="Correct spec.adEndpoint, or have the operator allow it: "
            f"--authorities={entra.authority}.",
            about=identity.ref,
        )
    secret = entra.secret
    if secret and secret.namespace != identity.ref.namespace and not rules.foreign_secrets:
        return Refusal(
            reason=Reason.FOREIGN_SECRET,
            message=f"AzureIdentity {identity.ref} names a secret of namespace "
            f"{secret.namespace}; only one of its own namespace is read.",
            next_step=f"Put the secret into namespace {identity.ref.namespace}, and leave "
            "spec.clientPassword.namespace out.",
            about=identity.ref,
        )
    return None


def _refuse_unassigned(
    pod: Pod, identity: AzureIdentity, record: AzureAssignedIdentity | None
) -> Refusal | None:
    """Return the refusal of standard mode until the identity is on the pod's node.

    Only user-assigned identities are attached to a machine and need a record.
    """
    if identity.type is not IdentityType.USER_ASSIGNED or identity.system_assigned:
        return None
    state = record.state if record else None
    if state is Assignment.ASSIGNED:
        return None
    what = f"AzureAssignedIdentity is {state.value}" if state else "no AzureAssignedIdentity yet"
    return Refusal(
        reason=Reason.NOT_ASSIGNED,
        message=f"AzureIdentity {identity.ref} is not assigned to node {pod.node} for pod "
        f"{pod.ref}: {what}.",
        next_step="Read the log of the controller (MIC), and the events of the "
        "AzureIdentityBinding.",
        about=identity.ref,
        told=f"The identity {identity.ref.name} is not assigned to the pod's node yet.",
    )


def assignment(
    records: tuple[AzureAssignedIdentity, ...], pod: Pod, identity: ObjectRef
) -> AzureAssignedIdentity | None:
    """Return the record for `pod` and `identity` on the pod's node; of several the furthest."""
    order = {Assignment.ASSIGNED: 0, Assignment.CREATED: 1, Assignment.UNASSIGNED: 2}
    mine = [each for each in records if each.identity == identity and each.node == pod.node]
    return min(mine, key=lambda each: order[each.state], default=None)


def _refuse_always(pod: Pod) -> Refusal | None:
    """Return the refusal of a pod that can never get a token, whatever is bound to it."""
    if pod.host_network:
        return Refusal(
            reason=Reason.HOST_NETWORK,
            message=f"Pod {pod.ref} uses the node's network, where pods cannot be told apart.",
            next_step="Run it without hostNetwork. It asks IMDS itself meanwhile: MIC attaches "
            "what is bound to it by --attach-for-node-network.",
            about=pod.ref,
        )
    if pod.ended:
        return Refusal(
            reason=Reason.POD_ENDED,
            message=f"Pod {pod.ref} has ended ({pod.phase.value}).",
            next_step="No action is needed: an ended pod needs no token.",
            about=pod.ref,
        )
    return None


def _no_label(pod: Pod) -> Refusal:
    return Refusal(
        reason=Reason.NO_LABEL,
        message=f"Pod {pod.ref} has no label {BINDING_LABEL}, and its service account "
        f"{pod.service_account} is not annotated with azure.workload.identity/client-id.",
        next_step=f"Label it {BINDING_LABEL}=SELECTOR, SELECTOR being that of a binding in "
        f"namespace {pod.ref.namespace}.",
        about=pod.ref,
        told=NOT_FOUND,
    )


def _no_tenant(account: ObjectRef) -> Refusal:
    return Refusal(
        reason=Reason.NO_TENANT,
        message=f"ServiceAccount {account} names a client id but no tenant, and NMI was told none.",
        next_step="Annotate it with azure.workload.identity/tenant-id, or start NMI with "
        "--tenant-id.",
        about=account,
    )


def _no_binding(pod: Pod, directory: Directory) -> Refusal:
    namespace, selector = pod.ref.namespace, pod.selector
    told = f"No AzureIdentityBinding in namespace {namespace} has the selector {selector!r}."
    for each in directory.malformed_bindings(namespace, selector):
        return Refusal(
            reason=Reason.MALFORMED_BINDING,
            message=f"{told} AzureIdentityBinding {each.ref} cannot be used: {each.why}.",
            next_step=f"Correct AzureIdentityBinding {each.ref}.",
            about=each.ref,
        )
    found = _no_binding_at_all(pod, directory)
    # One that says no selector may have been meant for this pod. Nobody knows, so it is not the
    # reason, and no business of the pod.
    doubtful = [malformed(each).message for each in directory.malformed_bindings(namespace, "")[:1]]
    return replace(found, message=" ".join([found.message, *doubtful]), told=told)


def _no_binding_at_all(pod: Pod, directory: Directory) -> Refusal:
    namespace, selector = pod.ref.namespace, pod.selector
    told = f"No AzureIdentityBinding in namespace {namespace} has the selector {selector!r}."
    elsewhere = [name for name in directory.namespaces_with(selector) if name != namespace]
    if elsewhere:
        return Refusal(
            reason=Reason.OTHER_NAMESPACE,
            message=f"{told} Namespace {_some(elsewhere)} has one, but the application and its "
            "AzureIdentity must be in the same namespace.",
            next_step=f"Create the AzureIdentity and its binding in namespace {namespace}, or run "
            f"the pod in {elsewhere[0]}.",
            about=pod.ref,
        )
    return Refusal(
        reason=Reason.NO_BINDING,
        message=told,
        next_step=f"Create one (podidentity add --namespace {namespace} --binding-selector "
        f"{selector} …), or correct the pod's label {BINDING_LABEL}.",
        about=pod.ref,
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


# The decision.


class Authorization(StrEnum):
    """The effect of a missing permission; values are those of `--authorization`."""

    RBAC = "rbac"
    """The request is refused."""
    OBSERVE = "observe"
    """Log, audit and event report it, but the token is given."""
    OFF = "off"
    """Permissions are not checked."""


class Use(NamedTuple):
    """A question to the API server: may this service account use the resource of this name?"""

    service_account: ObjectRef
    name: str

    def __str__(self) -> str:
        return f"{self.service_account} {VERB} {self.name}"


Permitted = Callable[[Use], bool | None]
"""Returns the known decision on a permission; None if the cluster must be asked."""


class Ambiguity(StrEnum):
    """The answer to a request without an id if the pod has several identities."""

    WEIGHT = "weight"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The pod gets a token of the entitlement's identity."""

    pod: Pod
    entitlement: Entitlement
    observed: Refusal | None = None
    """The refusal that `--authorization=observe` reported instead."""

    @property
    def identity(self) -> AzureIdentity:
        return self.entitlement.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The pod gets no token."""

    pod: Pod
    refusal: Refusal
    identity: AzureIdentity | None = None
    """The identity that the refusal concerns, if any."""
    observed: Refusal | None = None
    """An earlier refusal that `--authorization=observe` only reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """The cluster's RBAC must be asked first."""

    pod: Pod
    question: Use
    identity: AzureIdentity | None = None
    """The identity that the question concerns, if any."""


Decision = Allowed | Denied | Undecided


def decide(
    matched: Match,
    request: TokenRequest,
    permitted: Permitted,
    *,
    ambiguity: Ambiguity = Ambiguity.WEIGHT,
    authorization: Authorization = Authorization.RBAC,
) -> Decision:
    """Return the decision on `request` of the pod of `matched`.

    If the request names no identity, the first permitted one answers. If that one is not on the
    node yet, the request waits for it, so that the answer is the same each time.
    """
    if authorization is Authorization.OFF:
        permitted = _always
    observing = authorization is Authorization.OBSERVE
    candidates = select(matched, request, ambiguity)
    if isinstance(candidates, Refusal):
        return Denied(pod=matched.pod, refusal=candidates)
    if not candidates:
        return _decide_not_among(matched, request, _always if observing else permitted)
    refused: list[tuple[Entitlement, Use]] = []
    for entitlement in candidates[:MOST_TRIED]:
        lacking = _lacking(matched, entitlement, permitted)
        if lacking is None:
            return _granted(matched, entitlement)
        if permitted(lacking) is None:
            return Undecided(pod=matched.pod, question=lacking, identity=entitlement.identity)
        if observing:
            observed = not_permitted(matched.pod, entitlement.identity, lacking)
            return _granted(matched, entitlement, observed)
        refused.append((entitlement, lacking))
    return _not_permitted(matched, *refused[0], permitted)


def _always(use: Use) -> bool:
    """Permit everything, for `--authorization=off`."""
    del use
    return True


def _lacking(matched: Match, entitlement: Entitlement, permitted: Permitted) -> Use | None:
    """Return the first permission that is denied or not known."""
    return next((use for use in uses_of(matched.pod, entitlement) if not permitted(use)), None)


def _granted(
    matched: Match, entitlement: Entitlement, observed: Refusal | None = None
) -> Allowed | Denied:
    pod, awaited = matched.pod, entitlement.awaited
    if awaited is not None:
        identity = entitlement.identity
        return Denied(pod=pod, refusal=awaited, identity=identity, observed=observed)
    return Allowed(pod=pod, entitlement=entitlement, observed=observed)


def _decide_not_among(matched: Match, request: TokenRequest, permitted: Permitted) -> Decision:
    usable = _usable(matched, permitted)
    if isinstance(usable, Use):
        return Undecided(pod=matched.pod, question=usable)
    refusal = _refuse_not_among(matched, request, usable, _unseen(matched, permitted))
    return Denied(pod=matched.pod, refusal=refusal)


def _not_permitted(
    matched: Match, entitlement: Entitlement, lacking: Use, permitted: Permitted
) -> Decision:
    usable = _usable(matched, permitted)
    identity = entitlement.identity
    if isinstance(usable, Use):
        return Undecided(pod=matched.pod, question=usable, identity=identity)
    refusal = not_permitted(matched.pod, identity, lacking, usable, _unseen(matched, permitted))
    return Denied(pod=matched.pod, refusal=refusal, identity=identity)


def _usable(matched: Match, permitted: Permitted) -> Sequence[Entitlement] | Use:
    """Return the permitted entitlements, or the permission that must be asked for first."""
    if permitted is _always:
        return matched.entitlements
    usable: list[Entitlement] = []
    for entitlement in matched.entitlements[:MOST_TRIED]:
        lacking = _lacking(matched, entitlement, permitted)
        if lacking is None:
            usable.append(entitlement)
        elif permitted(lacking) is None:
            return lacking
    return usable


def _unseen(matched: Match, permitted: Permitted) -> int:
    """Return the number of identities that `_usable` does not check: each may cost questions."""
    return 0 if permitted is _always else max(0, len(matched.entitlements) - MOST_TRIED)


# Which identity is asked for.


def select(
    matched: Match, request: TokenRequest, ambiguity: Ambiguity = Ambiguity.WEIGHT
) -> tuple[Entitlement, ...] | Refusal:
    """Return the entitlements that may answer `request`, best first, or a refusal.

    More than one only if the request names no identity: the first permitted one answers. Empty if
    it names an identity that the pod does not have.
    """
    if matched.exception is not None:
        found = _identity_of_node(matched.pod, matched.exception, request)
        if isinstance(found, Refusal):
            return found
        return (Entitlement(identity=found, basis=Basis.EXCEPTION),)
    if not matched.entitlements:
        return matched.refusals[0]
    if request.asked is None:
        if len(matched.entitlements) > 1 and ambiguity is Ambiguity.REJECT:
            return _refuse_several(matched)
        return matched.entitlements
    answering = (each for each in matched.entitlements if _answers(each.identity, request))
    return tuple(islice(answering, 1))


def _identity_of_node(
    pod: Pod, exception: AzurePodIdentityException, request: TokenRequest
) -> AzureIdentity | Refusal:
    """Return the identity for an excepted pod, or the refusal.

    Without a list in the exception every requested identity is allowed, and a request without an id
    gets the node's own identity. With a list only its identities are allowed, and a request without
    an id gets the first.
    """
    listed = exception.identities
    asked = request.asked
    if asked is None and listed:
        asked = listed[0]
    if listed and asked not in listed:
        return Refusal(
            reason=Reason.NOT_AMONG,
            message=f"{NOT_FOUND}: AzurePodIdentityException {exception.ref} does not let pod "
            f"{pod.ref} use {asked}. It may use: {', '.join(str(each) for each in listed)}.",
            next_step="Ask for one of these, or add it to spec.azureIdentities.",
            about=exception.ref,
        )
    return AzureIdentity(
        ref=exception.ref,
        type=IdentityType.USER_ASSIGNED,
        client_id=asked if isinstance(asked, ClientId) else None,
        resource_id=asked if isinstance(asked, ResourceId) else None,
        object_id=request.object_id,
        system_assigned=asked is None,
    )


def _answers(identity: AzureIdentity, request: TokenRequest) -> bool:
    """Whether `identity` is the requested one; an identity without that kind of id never is."""
    if request.client_id is not None:
        return identity.client_id == request.client_id
    if request.object_id is not None:
        return identity.object_id == request.object_id
    return identity.resource_id == request.resource_id


def _refuse_not_among(
    matched: Match, request: TokenRequest, usable: Sequence[Entitlement], unseen: int
) -> Refusal:
    """Return the refusal of a request for an identity that the pod does not have.

    `usable` are the identities that it may use instead; `unseen` more were not checked.
    """
    return Refusal(
        reason=Reason.NOT_AMONG,
        message=f"{NOT_FOUND}: pod {matched.pod.ref} has no identity {request.asked}. "
        f"{may_use(usable, unseen)}",
        next_step="Ask for one of these, or bind the identity to the pod.",
        about=matched.pod.ref,
    )


def _refuse_several(matched: Match) -> Refusal:
    return Refusal(
        reason=Reason.AMBIGUOUS,
        message=f"Pod {matched.pod.ref} may use several identities and named none: "
        f"{all_named(matched.entitlements)}.",
        next_step="Name one by client_id, object_id or msi_res_id.",
        about=matched.pod.ref,
        told="Multiple user assigned identities exist, please specify the clientId / resourceId "
        "of the identity in the token request",
    )


# The permission to use an identity.


def uses_of(pod: Pod, entitlement: Entitlement) -> tuple[Use, ...]:
    """Return all permissions that `entitlement` of `pod` needs; usually one.

    A managed identity that is the credential of another (`federation.via`) needs its own
    permission: else a tenant could sign in to his application by a neighbour's identity.
    """
    if entitlement.basis is not Basis.BINDING:
        return ()
    account = ObjectRef(pod.ref.namespace, pod.service_account)
    return tuple(Use(account, name) for name in permission_names(entitlement.identity))


def permission_names(identity: AzureIdentity) -> tuple[str, ...]:
    """Return the names of all resources to which `use` must be granted."""
    federation = identity.entra.federation if identity.entra else None
    if federation is None or federation.via is None:
        return (permission_name(identity),)
    return (permission_name(identity), federation.via.folded)


def permission_name(identity: AzureIdentity) -> str:
    """Return the name of the resource to which `use` must be granted."""
    if identity.system_assigned:
        return SYSTEM_ASSIGNED
    if identity.client_id is not None:
        return str(identity.client_id)
    return identity.resource_id.folded if identity.resource_id else ""


def not_permitted(
    pod: Pod,
    identity: AzureIdentity,
    use: Use,
    usable: Sequence[Entitlement] | None = None,
    unseen: int = 0,
) -> Refusal:
    """Return the refusal of a pod whose service account lacks the permission.

    `usable` are the identities that it may use instead, None if unknown; `unseen` more were not
    checked.
    """
    instead = "" if usable is None else f" {may_use(usable, unseen)}"
    return Refusal(
        reason=Reason.NOT_PERMITTED,
        message=f"Service account {use.service_account} of pod {pod.ref} may not use the identity "
        f"{use.name} of AzureIdentity {identity.ref}.{instead}",
        next_step="An operator grants it: podidentity grant --namespace "
        f"{use.service_account.namespace} --identity {use.name}.",
        about=identity.ref,
    )


def lacking(use: Use) -> Refusal:
    """Return the refusal of all pods of a service account that lacks the permission."""
    return Refusal(
        reason=Reason.NOT_PERMITTED,
        message=f"Service account {use.service_account} may not use the identity {use.name}.",
        next_step="An operator grants it: podidentity grant --namespace "
        f"{use.service_account.namespace} --identity {use.name}.",
    )


# What is granted.


def granted(entitlement: Entitlement, pod: Pod, request: TokenRequest) -> Grant:
    """Return the grant of `entitlement`; raise InvalidRequest for a tenant of another identity."""
    identity, tenant = entitlement.identity, request.tenant
    entra = identity.entra
    if tenant is None or entra is None or tenant == entra.tenant:
        # IMDS issues tokens of its own tenant only, and ignores the parameter.
        return Grant(identity=identity, pod=pod)
    if tenant not in entra.auxiliary_tenants:
        raise InvalidRequest(
            f"authority names the tenant {tenant}, which is none of {named(identity)}"
        )
    return Grant(identity=identity, pod=pod, tenant=tenant)


def current_grants(grant: Grant, directory: Directory) -> Iterator[Grant]:
    """Yield the grant again from the current objects; nothing if its identity is gone.

    The token cache drops tokens without a current grant. An AzureIdentity, an annotated service
    account and an exception may have the same name, so there may be several.
    """
    identity = grant.identity
    found = directory.identity(identity.ref)
    if isinstance(found, AzureIdentity):
        yield replace(grant, identity=found)
    account = directory.workload_identity(identity.ref)
    if isinstance(account, WorkloadIdentity) and account.client_id == identity.client_id:
        yield grant
    if any(each.ref == identity.ref for each in directory.exceptions(identity.ref.namespace)):
        yield grant


# Identities in messages.


def named(identity: AzureIdentity) -> str:
    """Return an identity for a message: `orders (11111111-…)`."""
    known = identity.client_id or identity.resource_id
    return f"{identity.ref.name} ({known})" if known else identity.ref.name


def all_named(entitlements: Sequence[Entitlement]) -> str:
    """Return identities for a message, the first ten; `none` for none."""
    names = [named(each.identity) for each in entitlements[:MOST_NAMED]]
    more = len(entitlements) - len(names)
    return ", ".join(names or ["none"]) + (f" and {more} more" if more else "")


def may_use(usable: Sequence[Entitlement], unseen: int = 0) -> str:
    """Return a sentence with the identities that a pod may use; `unseen` more were not checked."""
    said = f"It may use: {all_named(usable)}."
    if not unseen:
        return said
    seen = f"the first {MOST_NAMED} of {MOST_NAMED + unseen} were checked"
    return f"{said} Only {seen}; name one by client_id."
