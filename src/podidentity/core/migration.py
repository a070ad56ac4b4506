"""What pods have under the rules of AAD Pod Identity's NMI, and would not have under ours.

Both sides are answers of `decision.match`, with other `Rules`: nothing here says anew what an
identity, a binding or an exception means. What brings a loss back is found in the same way: by
asking again with the operator's switches turned, the fewest first.

Objects count also where no pod uses them at the moment: a CronJob's pods come at night. For each
binding and each exception a pod is invented that it selects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

from podidentity.core.authorities import KNOWN_AUTHORITIES
from podidentity.core.decision import (
    Directory,
    Entitlement,
    Match,
    Rules,
    Use,
    ineffective_exception,
    match,
    not_permitted,
    unusable_credential,
    uses_of,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    BINDING_LABEL,
    Authority,
    AzureIdentityBinding,
    AzurePodIdentityException,
    IdentityType,
    ObjectRef,
    Pod,
    ResourceId,
)


class Switch(StrEnum):
    """A flag of NMI that brings a rule of the archived project back, for the whole cluster."""

    CROSS_NAMESPACE = "--compat-cross-namespace"
    FOREIGN_SECRETS = "--compat-foreign-secrets"
    ANY_LABEL = "--compat-any-label-exceptions"
    EXCEPTION_NAMESPACES = "--exception-namespaces"
    AUTHORITIES = "--authorities"

    @property
    def opens(self) -> str:
        return _OPENS[self]


_OPENS = {
    Switch.CROSS_NAMESPACE: "whoever may make an AzureIdentityBinding anywhere chooses the "
    "identity of every pod with its selector, in every namespace",
    Switch.FOREIGN_SECRETS: "whoever may make an AzureIdentity has any Secret of the cluster that "
    "can be a credential sent to Entra",
    Switch.ANY_LABEL: "a pod that has one label of an exception by chance may use every identity "
    "of its node",
    Switch.EXCEPTION_NAMESPACES: "whoever may make an AzurePodIdentityException there has every "
    "identity of the nodes, the machine's own among them",
    Switch.AUTHORITIES: "secrets of identities are sent to that server",
}


def archived_rules(authorities: Iterable[Authority], *, namespaced: bool) -> Rules:
    """Return the rules of AAD Pod Identity's NMI 1.8.17.

    It has no list of authorities, so `authorities` are those that the cluster's identities name.
    `namespaced` is its `--forceNamespaced`, which managed mode needs. Whether an identity is
    attached already is no rule: it passes.
    https://azure.github.io/aad-pod-identity/docs/configure/match_pods_in_namespace/
    """
    return Rules(
        exception_namespaces=None,
        any_label=True,
        cross_namespace=not namespaced,
        foreign_secrets=True,
        authorities=KNOWN_AUTHORITIES | frozenset(authorities),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What pods of one namespace have under the archived rules, and would lose."""

    namespace: str
    """Of the pods."""
    pods: tuple[ObjectRef, ...]
    """Those that there are now, sorted; () where only pods to come are meant."""
    refusal: Refusal
    """Ours, of the first of them."""
    switches: tuple[Switch, ...] = ()
    """Those without which the rules refuse it; () where none is needed, or none would do."""
    permissions: tuple[str, ...] = ()
    """What nobody has granted to the namespace, as `podidentity grant --identity` names it."""

    @property
    def granting_is_enough(self) -> bool:
        return bool(self.permissions) and not self.switches


Permitted = Callable[[Use], bool]
"""Whether a service account may use an identity; with the account "": any of the namespace."""


def losses(
    pods: Iterable[Pod],
    bindings: Iterable[AzureIdentityBinding],
    exceptions: Iterable[AzurePodIdentityException],
    directory: Directory,
    *,
    before: Rules,
    after: Rules,
    permitted: Permitted,
    attaches: bool,
) -> list[Loss]:
    """Return the losses from the rules `before` to `after`, each once, by namespace and object.

    Pods that the rules `before` refuse, too, lose nothing, and neither do ended ones. `attaches`
    says whether the archived MIC is there, which attaches identities for pods of the node's network
    and excepted ones, too.
    """
    found: dict[tuple[object, ...], Loss] = {}
    both = _Comparison(directory, before, after, permitted, attaches)
    for pod in (*pods, *_invented(bindings, exceptions)):
        for loss in both.of(pod):
            why = loss.refusal
            key = (loss.namespace, why.about, why.reason, loss.switches, loss.permissions)
            known = found.setdefault(key, loss)
            if pod.uid and pod.ref not in known.pods:
                found[key] = replace(known, pods=(*known.pods, pod.ref))
    whole = (replace(each, pods=tuple(sorted(each.pods))) for each in found.values())
    return sorted(whole, key=_order)


def _order(loss: Loss) -> tuple[str, ObjectRef, str, tuple[str, ...]]:
    about = loss.refusal.about or ObjectRef("", "")
    return (loss.namespace, about, loss.refusal.reason.value, loss.permissions)


def _invented(
    bindings: Iterable[AzureIdentityBinding], exceptions: Iterable[AzurePodIdentityException]
) -> Iterator[Pod]:
    """Yield a pod without uid for each namespace and selector, and for each exception.

    Its service account "" stands for any of its namespace.
    """
    for namespace, selector in dict.fromkeys(
        (each.ref.namespace, each.selector) for each in bindings
    ):
        yield _pod(namespace, {BINDING_LABEL: selector})
    for each in exceptions:
        if each.pod_labels:
            yield _pod(each.ref.namespace, dict(each.pod_labels))


def _pod(namespace: str, labels: dict[str, str]) -> Pod:
    return Pod(ref=ObjectRef(namespace, ""), uid="", service_account="", labels=labels)


def attached_past_nmi(
    pod: Pod, directory: Directory, before: Rules, exceptions: Rules
) -> Iterator[tuple[ObjectRef, ResourceId]]:
    """Yield what the archived MIC attaches for a pod that asks IMDS itself; () for any other pod.

    That MIC looks at no `hostNetwork` and at no exception. `exceptions` are the rules by which an
    exception counts.
    """
    plain = replace(pod, host_network=False)
    if pod.host_network or match(plain, directory, exceptions).exception is not None:
        every = replace(before, exception_namespaces=frozenset())
        for each in match(plain, directory, every).entitlements:
            found = each.identity
            if found.type is IdentityType.USER_ASSIGNED and found.resource_id is not None:
                yield found.ref, found.resource_id


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One cluster under both rules."""

    directory: Directory
    before: Rules
    after: Rules
    permitted: Permitted
    attaches: bool

    def of(self, pod: Pod) -> Iterator[Loss]:
        had = match(pod, self.directory, self.before)
        if self.attaches:
            yield from self._of_attached(pod)
        if had.exception is not None:
            yield from self._of_excepted(pod, had.exception)
            if match(pod, self.directory, self.after).exception is None:
                # Ours serves it, so what is bound to it must count.
                every = replace(self.before, exception_namespaces=frozenset())
                had = match(pod, self.directory, every)
        for refusal in had.refusals:
            # The archived NMI reads no ids: what ours cannot use may have worked.
            if refusal.reason is Reason.MALFORMED_IDENTITY:
                yield _loss(pod, refusal)
        for each in had.entitlements:
            yield from self._of_entitled(pod, each)

    def _of_attached(self, pod: Pod) -> Iterator[Loss]:
        plain = replace(pod, host_network=False)
        excepted = match(plain, self.directory, self.after).exception
        for ref, resource_id in attached_past_nmi(pod, self.directory, self.before, self.after):
            if excepted is None:
                refusal = Refusal(
                    reason=Reason.HOST_NETWORK,
                    message=f"Pods of the node's network ask IMDS itself for AzureIdentity {ref}. "
                    "Our MIC does not attach it for them: on a new machine they get no token.",
                    next_step="Run the pods without hostNetwork, or grant them the identity and "
                    "have MIC attach it (podidentity enable --mic "
                    f"--mic-arg=--attach-for-node-network), or attach {resource_id} to each "
                    "machine yourself (az vmss identity assign): MIC leaves there what it did not "
                    "attach.",
                    about=ref,
                )
            else:
                refusal = Refusal(
                    reason=Reason.NOT_ASSIGNED,
                    message=f"Excepted pods ask IMDS itself for AzureIdentity {ref}. Our MIC does "
                    "not attach it for them: on a new machine they get no token.",
                    next_step=f"Take the labels of AzurePodIdentityException {excepted.ref} off "
                    f"the pods, or attach {resource_id} to each machine yourself (az vmss identity "
                    "assign): MIC leaves there what it did not attach.",
                    about=ref,
                )
            yield _loss(pod, refusal)

    def _of_excepted(self, pod: Pod, exception: AzurePodIdentityException) -> Iterator[Loss]:
        switches = self._fewest(pod, lambda found: found.exception is not None)
        if not switches:
            return
        refusal = ineffective_exception(pod, [exception], self.after)
        if refusal is None:
            refusal = Refusal(
                reason=Reason.EXCEPTION_IGNORED,
                message=f"Pods have some labels of AzurePodIdentityException {exception.ref}, and "
                "not all: it does not except them.",
                next_step="Remove the labels from spec.podLabels that they do not have.",
                about=exception.ref,
            )
        yield _loss(pod, refusal, switches)

    def _of_entitled(self, pod: Pod, old: Entitlement) -> Iterator[Loss]:
        ref = old.identity.ref
        switches = self._fewest(
            pod, lambda found: any(each.identity.ref == ref for each in found.entitlements)
        )
        missing = [use for use in uses_of(pod, old) if not self.permitted(use)]
        names = tuple(use.name for use in missing)
        if switches:
            refusal = None
            if ref.namespace == pod.ref.namespace:
                refusal = unusable_credential(old.identity, self.after)
            if refusal is None:
                refusal = Refusal(
                    reason=Reason.OTHER_NAMESPACE,
                    message=f"AzureIdentity {ref} is bound to pods of namespace "
                    f"{pod.ref.namespace} by its own namespace's binding; pod, binding and "
                    "identity must share a namespace.",
                    next_step="Create the AzureIdentity and its binding in namespace "
                    f"{pod.ref.namespace}.",
                    about=ref,
                )
            yield _loss(pod, refusal, switches, names)
        elif missing:
            refusal = Refusal(
                reason=Reason.NOT_PERMITTED,
                message=f"Pods of namespace {pod.ref.namespace} may not use AzureIdentity {ref}: "
                f"nobody has granted {' and '.join(names)}.",
                next_step=not_permitted(pod, old.identity, missing[0]).next_step,
                about=ref,
            )
            yield _loss(pod, refusal, permissions=names)

    def _fewest(self, pod: Pod, holds: Callable[[Match], bool]) -> tuple[Switch, ...]:
        """Return the fewest switches with which the match holds; () if it does without."""
        for number in range(len(Switch)):
            for some in combinations(Switch, number):
                rules = turned(self.after, some, self.before, pod.ref.namespace)
                if holds(match(pod, self.directory, rules)):
                    return some
        return tuple(Switch)


def _loss(
    pod: Pod,
    refusal: Refusal,
    switches: tuple[Switch, ...] = (),
    permissions: tuple[str, ...] = (),
) -> Loss:
    return Loss(
        namespace=pod.ref.namespace,
        pods=(pod.ref,) if pod.uid else (),
        refusal=refusal,
        switches=switches,
        permissions=permissions,
    )


def turned(after: Rules, switches: Sequence[Switch], before: Rules, namespace: str) -> Rules:
    """Return the rules `after` with these switches, as far as pods of `namespace` need them."""
    allowed = after.exception_namespaces
    if Switch.EXCEPTION_NAMESPACES in switches and allowed is not None:
        allowed = allowed | {namespace}
    more = before.authorities if Switch.AUTHORITIES in switches else frozenset()
    return replace(
        after,
        cross_namespace=after.cross_namespace or Switch.CROSS_NAMESPACE in switches,
        foreign_secrets=after.foreign_secrets or Switch.FOREIGN_SECRETS in switches,
        any_label=after.any_label or Switch.ANY_LABEL in switches,
        exception_namespaces=allowed,
        authorities=after.authorities | more,
    )
