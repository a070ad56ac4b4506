"""What each command needs, in the cluster and in Azure: the one place that says it.

`podidentity rights` prints it as roles, docs/reference/rights.md shows it, and
tests/cli/test_needed_rights.py runs each command with exactly this, then without each single right.

A right may say what the command does without it. Without any other right the command fails, and
names that right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from podidentity.cli import parts as part
from podidentity.cli.checks.leftovers import LOCK
from podidentity.cli.cluster_rights import NMI_NAMESPACE, Right, Where, held_by
from podidentity.cli.controller import OLD_EXCEPTION
from podidentity.cli.enable import NAME as RECORD
from podidentity.cli.enable import PROTECTED
from podidentity.cli.rollout import PROBE_SET
from podidentity.core.decision import GROUP, RESOURCE, VERB
from podidentity.manifests import (
    ACCOUNT,
    ADMIN_SECRET,
    DEBUG_READER,
    NODE_AUDIENCES,
    POLICY_OF_NMI,
    TOKENS,
    Manifest,
    admission_policies,
    aks_exceptions,
    crds,
    local_redirect,
    mic,
    nmi,
    startup_taint_rights,
)
from podidentity.wire.pauses import PAUSES


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureAction:
    """An action of Azure's RBAC, as a role definition has it."""

    scope: part.AzureScope
    action: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a command needs."""

    cluster: tuple[Right, ...]
    azure: tuple[AzureAction, ...] = ()

    @property
    def parts(self) -> list[str]:
        every: tuple[Right | AzureAction, ...] = (*self.cluster, *self.azure)
        return list(dict.fromkeys(name for each in every for name in each.parts))

    def of(self, parts: Iterable[str]) -> Needs:
        wanted = set(parts)

        def counts(need: Right | AzureAction) -> bool:
            return not need.parts or not wanted.isdisjoint(need.parts)

        return Needs(
            cluster=tuple(filter(counts, self.cluster)), azure=tuple(filter(counts, self.azure))
        )


# ---- Resources

_IDENTITIES = f"azureidentities.{GROUP}"
_BINDINGS = f"azureidentitybindings.{GROUP}"
_EXCEPTIONS = f"azurepodidentityexceptions.{GROUP}"
_ASSIGNED = f"azureassignedidentities.{GROUP}"
_LEDGERS = f"azureidentityledgers.{GROUP}"
_ROLES = ("clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io")
_KINDS_OF_ROLES = ("ClusterRole", "ClusterRoleBinding")
_LOCAL_ROLES = ("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io")
_POLICIES = (
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
)
_CRDS = "customresourcedefinitions.apiextensions.k8s.io"
_DAEMON_SETS = "daemonsets.apps"
_DEPLOYMENTS = "deployments.apps"
_BUDGETS = "poddisruptionbudgets.policy"
_LOCAL_REDIRECTS = "ciliumlocalredirectpolicies.cilium.io"
_DENIALS = "ciliumclusterwidenetworkpolicies.cilium.io"
_NETWORK_POLICIES = "networkpolicies.networking.k8s.io"
_DISCOVERY = "/.well-known/openid-configuration"
_REVIEWS = "subjectaccessreviews.authorization.k8s.io"
_CLUSTER, _PODS, _NMI, _SYSTEM, _ACCOUNTS, _LEASE, _NODE_LEASES = Where


def _to(
    verbs: str,
    *resources: str,
    at: Where = Where.CLUSTER,
    names: Iterable[str] = (),
    parts: Iterable[str] = (),
    without: str = "",
) -> Iterator[Right]:
    for resource in resources:
        yield Right(
            where=at,
            resource=resource,
            verbs=tuple(verbs.split()),
            names=tuple(names),
            parts=tuple(parts),
            without=without,
        )


def _to_apply(
    *resources: str, names: Iterable[str] = (), at: Where = Where.CLUSTER, parts: Iterable[str] = ()
) -> Iterator[Right]:
    """Yield what it takes to create objects, and to change them at the next run.

    A request to create has no name, so that RBAC cannot bound it by names.
    """
    names, parts = tuple(names), tuple(parts)
    for resource in resources:
        if names:
            yield from _to("create", resource, at=at, parts=parts)
            yield from _to("get patch", resource, at=at, names=names, parts=parts)
        else:
            yield from _to("get create patch", resource, at=at, parts=parts)


# ---- What NMI itself holds: a person needs the same rights to run `enable`
#
# https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping


def _added(by: list[Manifest]) -> list[Manifest]:
    usual = {(each["kind"], each["metadata"]["name"]) for each in nmi()}
    return [each for each in by if (each["kind"], each["metadata"]["name"]) not in usual]


_USUAL, _FOR_POLICY, _FOR_NODE_TOKENS = nmi(), _added(nmi(policy=True)), _added(nmi(as_node=True))
_OF_RECORDS = [nmi(standard=True)[1]]
_FOR_TAINT = startup_taint_rights()
_FOR_RESOURCES = admission_policies()
_OF_MIC = mic(managed_identity=True)


def _names(kind: str, *manifests: Iterable[Manifest]) -> list[str]:
    return [each["metadata"]["name"] for some in manifests for each in some if each["kind"] == kind]


_REDIRECT = _names("DaemonSet", local_redirect())
"""The DaemonSet of `--backend lrp`; `enable` and `disable` always look for it."""
_OUR_CRDS = _names("CustomResourceDefinition", crds())
_LOCAL_REDIRECT = _names("CiliumLocalRedirectPolicy", local_redirect())
_DENIAL = _names("CiliumClusterwideNetworkPolicy", local_redirect())
_OF_TAINT = _names("ClusterRoleBinding", _FOR_TAINT)
_EXCEPTIONS_OF_MIC = _names("AzurePodIdentityException", _OF_MIC)
_OF_AKS = _names("AzurePodIdentityException", aks_exceptions())
_NAMESPACES_OF_AKS = sorted({each["metadata"]["namespace"] for each in aks_exceptions()})


def _to_place(manifests: Iterable[Manifest], *parts: str) -> Iterator[Right]:
    manifests = list(manifests)
    kinds = (*_KINDS_OF_ROLES, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    for resource, kind in zip((*_ROLES, *_POLICIES), kinds, strict=True):
        if names := _names(kind, manifests):
            yield from _to_apply(resource, names=names, parts=parts)
    yield from held_by(manifests, *parts)


def _to_grant(*parts: str, bindings: str = "get create") -> Iterator[Right]:
    """Yield what it takes to grant an identity: the verb `use` on it is part of that.

    `bindings` are the verbs on ClusterRoleBindings: `podidentity grant` alone changes one.
    """
    yield from _to("get", "namespaces", parts=parts)
    yield from _to_apply(_ROLES[0], parts=parts)
    yield from _to(bindings, _ROLES[1], parts=parts)
    yield from _to(VERB, f"{RESOURCE}.{GROUP}", parts=parts)


def _to_adopt() -> Iterator[Right]:
    yield from _to("list", _ROLES[1])
    yield from _to("get", "namespaces", parts=[part.OLDER])
    yield from _to("patch", _ROLES[1], parts=[part.OLDER])


_ALONE = "looks for NMI in kube-system alone"


def _choices_of_nmi(*parts: str) -> Iterator[Right]:
    yield from _to("list", _DAEMON_SETS, parts=parts, without=_ALONE)
    said = "takes NMI's flags to be the defaults"
    yield from _to("list", _DAEMON_SETS, at=_NMI, parts=parts, without=said)


def _to_redirect() -> Iterator[Right]:
    yield from _to("get", _CRDS, names=[_LOCAL_REDIRECTS, _DENIALS], parts=[part.LRP])
    yield from _to("get patch", _DAEMON_SETS, at=_NMI, names=_REDIRECT, parts=[part.LRP])
    yield from _to("create", _LOCAL_REDIRECTS, at=_NMI, parts=[part.LRP])
    yield from _to("get delete", _LOCAL_REDIRECTS, at=_NMI, names=_LOCAL_REDIRECT, parts=[part.LRP])
    yield from _to("create", _DENIALS, parts=[part.LRP])
    yield from _to("get patch delete", _DENIALS, names=_DENIAL, parts=[part.LRP])
    yield from _to("list watch", "events", at=_NMI, parts=[part.LRP])


def _to_take_back() -> Iterator[Right]:
    yield from _to("get", _DAEMON_SETS, at=_NMI, names=_REDIRECT)
    yield from _to("delete", _DAEMON_SETS, at=_NMI, names=_REDIRECT, parts=[part.NO_LRP])
    yield from _to("delete", _LOCAL_REDIRECTS, at=_NMI, names=_LOCAL_REDIRECT, parts=[part.NO_LRP])
    yield from _to("delete", _DENIALS, names=_DENIAL, parts=[part.NO_LRP])
    yield from _to("get", _ROLES[0], names=_OF_TAINT)
    yield from _to("delete", *_ROLES, *_POLICIES, names=_OF_TAINT, parts=[part.NO_TAINT])


def _to_have_mic() -> Iterator[Right]:
    names = _names("Deployment", _OF_MIC)
    yield from _to("list", _DEPLOYMENTS)
    yield from _to_place(_OF_MIC, part.MIC)
    yield from (each for each in held_by(_OF_RECORDS, part.MIC) if each.resource == _ASSIGNED)
    for where, resource, named in _objects_of_mic():
        yield from _to_apply(resource, names=named, at=where, parts=[part.MIC])
    yield from _to("get", "secrets", names=[ADMIN_SECRET], at=_NMI, parts=[part.MIC_SECRET])
    yield from _to_apply(_EXCEPTIONS, names=_EXCEPTIONS_OF_MIC, at=_NMI, parts=[part.MIC_EXCEPTION])
    yield from _to("delete", _EXCEPTIONS, at=_NMI, names=_EXCEPTIONS_OF_MIC, parts=[part.MIC])
    yield from _to("watch", _DEPLOYMENTS, at=_NMI, names=names, parts=[part.MIC_WAIT])
    yield from _to("get", _EXCEPTIONS, names=[OLD_EXCEPTION], parts=[part.ARCHIVED_MIC])


def _to_take_mic() -> Iterator[Right]:
    for resource, kind in zip(_ROLES, _KINDS_OF_ROLES, strict=True):
        yield from _to("get", resource, names=_names(kind, _OF_MIC))
    for where, resource, named in _objects_of_mic():
        yield from _to("delete", resource, at=where, names=named, parts=[part.NO_MIC])
    for resource, kind in zip(_ROLES, _KINDS_OF_ROLES, strict=True):
        yield from _to("delete", resource, names=_names(kind, _OF_MIC), parts=[part.NO_MIC])
    yield from _to("delete", _EXCEPTIONS, at=_NMI, names=_EXCEPTIONS_OF_MIC, parts=[part.NO_MIC])


def _objects_of_mic() -> Iterator[tuple[Where, str, list[str]]]:
    resources = {
        "ServiceAccount": "serviceaccounts",
        "Role": _LOCAL_ROLES[0],
        "RoleBinding": _LOCAL_ROLES[1],
        "PodDisruptionBudget": _BUDGETS,
        "Deployment": _DEPLOYMENTS,
    }
    at_lease = [each for each in _OF_MIC if each["metadata"].get("namespace") == _LEASE.value]
    others = [each for each in _OF_MIC if each not in at_lease]
    for kind, resource in resources.items():
        for where, found in ((_NMI, others), (_LEASE, at_lease)):
            if names := _names(kind, found):
                yield where, resource, names


# ---- The commands


def _enable() -> Iterator[Right]:
    yield from _to_apply(_CRDS, names=_OUR_CRDS)
    yield from _to("list", _DAEMON_SETS)
    yield from _to_apply(_DAEMON_SETS, names=_names("DaemonSet", _USUAL), at=_NMI)
    yield from _to_apply("serviceaccounts", names=_names("ServiceAccount", _USUAL), at=_NMI)
    yield from _to_place(_USUAL)
    yield from _to_place([*_FOR_POLICY, *_FOR_RESOURCES])
    names = _names("ValidatingAdmissionPolicy", _FOR_RESOURCES)
    yield from _to("delete", *_POLICIES, names=names, parts=[part.NO_POLICIES])
    yield from _to("get", _POLICIES[1], names=[PROTECTED])
    yield from _to("get", "configmaps", names=[RECORD], at=_SYSTEM)
    yield from _to("create", "configmaps", at=_SYSTEM)
    yield from _to("get", "namespaces", names=_NAMESPACES_OF_AKS)
    yield from _to("create", _EXCEPTIONS, at=_SYSTEM)
    yield from _to("create", _EXCEPTIONS, parts=[part.EXTENSIONS])
    yield from _to("get patch", "namespaces", names=[NMI_NAMESPACE], parts=[part.OWN_NAMESPACE])
    yield from _to_place(_FOR_NODE_TOKENS, part.AS_NODE)
    yield from _to_place(_FOR_TAINT, part.STARTUP_TAINT)
    yield from _to_grant(part.FIRST_GRANTS)
    yield from _to_adopt()
    yield from _to_apply(*_LOCAL_ROLES, at=_ACCOUNTS, parts=[part.ACCOUNT_PART])
    yield from _to("delete", _DAEMON_SETS, at=_NMI, names=["nmi"], parts=[part.OLD])
    yield from _to_take_back()
    yield from _to_have_mic()
    yield from _to_take_mic()
    yield from _to_redirect()
    yield from _to("get", "configmaps", names=[RECORD], at=_NMI, parts=[part.AUTOMATIC])
    yield from _to("create", "configmaps", at=_NMI, parts=[part.AUTOMATIC])
    yield from _to_wait()


def _to_wait() -> Iterator[Right]:
    yield from _to("watch", _DAEMON_SETS, at=_NMI, names=["nmi"], parts=[part.WAIT])
    said = "does not prove that the admission policies are in force, and says so"
    yield from _to("create", _IDENTITIES, _BINDINGS, at=_NMI, parts=[part.WAIT], without=said)
    said = "says on how many nodes NMI is not ready, and not why"
    yield from _to("list", "events", at=_NMI, parts=[part.WAIT], without=said)


def _disable() -> Iterator[Right]:
    made = (_USUAL, _FOR_POLICY, _FOR_NODE_TOKENS)
    yield from _to("list", _DAEMON_SETS, _DEPLOYMENTS, _LEDGERS, _ASSIGNED)
    yield from _to("get", _ROLES[1], names=[ACCOUNT])
    said = "does not say what is left of a Helm release whose namespace is gone"
    yield from _to("list", _ROLES[1], without=said)
    yield from _to("get", "namespaces", parts=[part.LOST])
    yield from _to("delete", _LEDGERS, parts=[part.DETACH_ALL])
    yield from _to("patch", _ASSIGNED, parts=[part.FINALIZERS])
    yield from _to_take_back()
    yield from _to_take_mic()
    yield from _to("delete", _DAEMON_SETS, at=_NMI, names=_names("DaemonSet", _USUAL))
    yield from _to("delete", "serviceaccounts", at=_NMI, names=_names("ServiceAccount", _USUAL))
    yield from _to("delete", _ROLES[0], names=_names("ClusterRole", *made))
    yield from _to("delete", _ROLES[1], names=_names("ClusterRoleBinding", *made))
    names = _names("ValidatingAdmissionPolicy", _FOR_POLICY, _FOR_RESOURCES)
    yield from _to("delete", *_POLICIES, names=names)
    yield from _to("get", _EXCEPTIONS, names=_OF_AKS)
    yield from _to("delete", _EXCEPTIONS, names=_OF_AKS[:1], at=_SYSTEM)
    yield from _to("delete", _EXCEPTIONS, names=_OF_AKS[1:], parts=[part.EXTENSIONS])
    yield from _to("list watch", "pods", at=_NMI)
    yield from _to("delete", _CRDS, names=_OUR_CRDS, parts=[part.PURGE])
    yield from _to("list", _IDENTITIES, parts=[part.PURGE])
    yield from _to("list", _ROLES[0], parts=[part.PURGE])
    yield from _to("delete", *_ROLES, parts=[part.PURGE])
    for where in (_SYSTEM, _NMI):
        yield from _to("delete", "configmaps", names=[RECORD], at=where, parts=[part.PURGE])


def _add() -> Iterator[Right]:
    yield from _to_apply(_IDENTITIES, _BINDINGS, at=_PODS)
    yield from _to_grant(part.GRANT)
    yield from _to("list", _ROLES[1], parts=[part.GRANT])
    yield from _to("patch", _ROLES[1], parts=[part.OLDER])
    said = "says what it could not take back, and the command that does"
    yield from _to("delete", _IDENTITIES, _BINDINGS, at=_PODS, parts=[part.TAKE_BACK], without=said)
    yield from _to("delete", _ROLES[0], parts=[part.TAKE_BACK], without=said)
    yield from _to("list", "nodes", _IDENTITIES, _DEPLOYMENTS, parts=[part.ATTACH])
    said = "counts no record of attached machines in other namespaces, and says so"
    yield from _to("list", *_ROLES, parts=[part.SHARED], without=said)
    yield from _to("list", _ROLES[1], parts=[part.ELSEWHERE])
    yield from _choices_of_nmi(part.ATTACH, part.LOOK_UP, part.FEDERATED)
    yield from _to("get", _DISCOVERY, parts=[part.FEDERATED], without="writes ISSUER in its place")
    yield from _to_apply("serviceaccounts", *_LOCAL_ROLES, at=_ACCOUNTS, parts=[part.ACCOUNT_PART])
    yield from _to("create", TOKENS, at=_ACCOUNTS, parts=[part.ACCOUNT_PART])


def _delete() -> Iterator[Right]:
    yield from _to("get list delete", _IDENTITIES, _BINDINGS, at=_PODS)
    said = "leaves the permission, and says so"
    yield from _to("list delete", _ROLES[1], parts=[part.REVOKE], without=said)
    yield from _to("delete", _ROLES[0], parts=[part.REVOKE], without=said)
    yield from _to("list", _IDENTITIES, parts=[part.DETACH, part.KEEP])
    yield from _to("list", _DEPLOYMENTS, "nodes", parts=[part.DETACH])
    said = "names what stays attached, and ends with status 1 before it deletes the AzureIdentity"
    yield from _to("list", *_ROLES, parts=[part.DETACH], without=said)
    yield from _to("get patch", _IDENTITIES, parts=[part.KEEP])
    yield from _choices_of_nmi(part.DETACH, part.ACCOUNT_PART)
    said = "leaves the service account, and says so"
    accounts = partial(_to, at=_ACCOUNTS, parts=[part.ACCOUNT_PART], without=said)
    yield from accounts("get", "serviceaccounts")
    yield from accounts("delete", "serviceaccounts", *_LOCAL_ROLES)


def _list() -> Iterator[Right]:
    yield from _to("list", _IDENTITIES, _BINDINGS, "pods", at=_PODS)
    yield from _to("list", *_ROLES, without="shows `?` for who is permitted")
    said = "does not say which grants are for namespaces that are gone"
    yield from _to("list", "namespaces", parts=[part.GRANTS], without=said)


def _exception() -> Iterator[Right]:
    yield from _to("get create", _EXCEPTIONS, at=_PODS, parts=[part.EXCEPT])
    yield from _to("get patch", _EXCEPTIONS, at=_PODS, parts=[part.CHANGE])
    yield from _to("list", _EXCEPTIONS, at=_PODS, parts=[part.EXCEPTED])
    yield from _to("delete", _EXCEPTIONS, at=_PODS, parts=[part.NO_EXCEPTION])
    yield from _choices_of_nmi(part.EXCEPT, part.CHANGE, part.EXCEPTED)
    yield from _to("list", _ROLES[1], parts=[part.ELSEWHERE], without=_ALONE)


def _revoke() -> Iterator[Right]:
    yield from _to("list delete", _ROLES[1])
    yield from _to("delete", _ROLES[0])
    yield from _to("list", _ROLES[0], without="cannot say what grants it all the same")


def _explain() -> Iterator[Right]:
    yield from _to("get", "pods", at=_PODS)
    yield from _to(
        "list", _IDENTITIES, _BINDINGS, _EXCEPTIONS, _ASSIGNED, "serviceaccounts", at=_PODS
    )
    elsewhere = "knows nothing of other namespaces' objects"
    yield from _to("list", _IDENTITIES, _BINDINGS, _ASSIGNED, without=elsewhere)
    yield from _choices_of_nmi()
    yield from _to("list", _ROLES[1], parts=[part.ELSEWHERE], without=_ALONE)
    unknown = "shows `?` for that link"
    yield from _to("create", _REVIEWS, without=unknown)
    yield from _to("get", "secrets", at=_PODS, parts=[part.SECRETS], without=unknown)
    yield from _to(
        "get", "serviceaccounts", at=_ACCOUNTS, parts=[part.ACCOUNT_PART], without=unknown
    )
    yield from _to("list", _NETWORK_POLICIES, at=_PODS, without=unknown)
    yield from _to("get", "nodes", without=unknown)
    yield from _to("list", "pods", at=_NMI, without=unknown)
    said = "takes a kubelet's last word on NMI, however old"
    yield from _to("get", "leases.coordination.k8s.io", at=_NODE_LEASES, without=said)
    unprobed = "does not have NMI probe the path, and says so"
    yield from _to("patch", "pods", at=_NMI, without=unprobed)
    unanswered = "does not know how the last requests ended, and says so"
    yield from _to("list watch", "events", at=_NMI, without=f"{unprobed}; {unanswered}")
    yield from _to("list", "events", at=_PODS, without=unanswered)
    yield from _to("get", "pods/proxy", at=_NMI, without=unanswered)
    yield from _to("create", TOKENS, at=_NMI, names=[DEBUG_READER], without=unanswered)


_checked = partial(_to, without="says what it could not check, and ends with status 1")
_LATE = "learns a minute later that tokens fail, and says so"


def _check() -> Iterator[Right]:
    yield from _to("list", _IDENTITIES, _BINDINGS, _EXCEPTIONS, "pods")
    yield from _checked("list", *_ROLES, _DAEMON_SETS, _NETWORK_POLICIES, "nodes")
    yield from _checked("get", _DAEMON_SETS, at=_NMI, names=[PROBE_SET])
    yield from _checked("list", "events", at=_NMI)
    yield from _checked("list", _DEPLOYMENTS)
    yield from _checked("get", "configmaps", at=_NMI, names=[PAUSES], parts=[part.MIC_THERE])
    yield from _checked("get", "secrets", at=_NMI, names=[ADMIN_SECRET], parts=[part.MIC_THERE])
    yield from _checked("get", _POLICIES[0], names=[POLICY_OF_NMI])
    names = _names("ValidatingAdmissionPolicy", _FOR_RESOURCES)
    yield from _checked("get", _POLICIES[1], names=names)
    yield from _checked("get", _ROLES[0], names=[NODE_AUDIENCES, ACCOUNT], parts=[part.AS_NODE])
    yield from _checked("get", _DENIALS, names=_DENIAL, parts=[part.LRP])
    yield from _checked("get", "secrets", parts=[part.SECRETS])
    yield from _checked("get", "serviceaccounts", at=_ACCOUNTS, parts=[part.ACCOUNT_PART])
    yield from _checked("get", _CRDS, names=_OUR_CRDS)
    yield from _checked("create", _REVIEWS)
    yield from _checked("list", _ASSIGNED, parts=[part.NO_MIC_THERE, part.BUNDLE])
    yield from _checked("list", "namespaces")
    yield from _checked("get", "endpoints", at=_LEASE, names=[LOCK.name])
    archived = partial(
        _to, at=_NMI, parts=[part.BUNDLE], without="names what is missing in the archive"
    )
    yield from archived("get", "pods/log", "pods/proxy")
    yield from archived("create", TOKENS, names=[DEBUG_READER])
    yield from _to("get", "pods/proxy", at=_NMI, without=_LATE)
    yield from _checked("get", "pods/proxy", at=_NMI, parts=[part.PROBES])
    yield from _checked("get", _DISCOVERY, parts=[part.ISSUER])


def _check_namespace() -> Iterator[Right]:
    yield from _to("list", _IDENTITIES, _BINDINGS, _EXCEPTIONS, "pods", at=_PODS)
    yield from _choices_of_nmi()
    yield from _to("list", _ROLES[1], parts=[part.ELSEWHERE], without=_ALONE)
    yield from _to("list", *_ROLES, without="does not look at grants, and says so")
    said = "does not know whether IMDS and Entra answer, and says so"
    yield from _to("list", "pods", "events", at=_NMI, without=said)
    yield from _to("get", "pods/proxy", at=_NMI, without=_LATE)
    yield from _checked("list", _NETWORK_POLICIES, "events", at=_PODS)
    yield from _checked("get", "secrets", at=_PODS, parts=[part.SECRETS])
    yield from _checked("get", "serviceaccounts", at=_ACCOUNTS, parts=[part.ACCOUNT_PART])


def _check_pre() -> Iterator[Right]:
    yield from _checked("list", _DAEMON_SETS, _DEPLOYMENTS, "nodes")
    yield from _checked("list", _ROLES[1], parts=[part.ELSEWHERE])
    yield from _checked("get", _POLICIES[1], names=[PROTECTED])
    yield from _checked("get", "namespaces", names=[NMI_NAMESPACE])
    yield from _checked("get", _CRDS, names=_OUR_CRDS)


def _migrate() -> Iterator[Right]:
    yield from _to("list", _IDENTITIES, _BINDINGS, _EXCEPTIONS, "pods")
    yield from _to("list", *_ROLES, _DAEMON_SETS, _DEPLOYMENTS)
    yield from _to("get", "namespaces", parts=[part.APPLY])
    yield from _to("create", *_ROLES, parts=[part.APPLY])
    yield from _to(VERB, _IDENTITIES, parts=[part.APPLY])
    yield from _to("delete", *_ROLES, parts=[part.ROLLBACK])
    yield from _to("delete", "configmaps", names=[RECORD], at=_SYSTEM, parts=[part.ROLLBACK])
    yield from _to("list", _ASSIGNED, "nodes", parts=[part.ADOPT])
    yield from _to("get create patch", _LEDGERS, at=_NMI, parts=[part.ADOPT])


def _nodes() -> Iterator[Right]:
    yield from _to("list", "nodes", _DAEMON_SETS)
    yield from _to("list", _ROLES[1], parts=[part.ELSEWHERE])
    yield from _to("list", "pods", at=_NMI)


def _version() -> Iterator[Right]:
    yield from _to("list", _DAEMON_SETS, _DEPLOYMENTS)
    yield from _to("list", _ROLES[1], parts=[part.ELSEWHERE])
    yield from _to("list", "pods", at=_NMI)
    said = "commits of NMI and MIC are unknown, and so are versions that no image says"
    yield from _to("get", "pods/proxy", at=_NMI, without=said)


def _mic() -> Iterator[Right]:
    yield from _to("list", _DEPLOYMENTS)
    yield from _to("list", _ROLES[1], parts=[part.ELSEWHERE])
    yield from _to_apply("configmaps", names=[PAUSES], at=_NMI)
    yield from _to("get", "nodes", parts=[part.HOST])


def _machines(verbs: str, *parts: str) -> Iterator[AzureAction]:
    for kind in ("virtualMachineScaleSets", "virtualMachines"):
        for verb in verbs.split():
            action = f"Microsoft.Compute/{kind}/{verb}"
            yield AzureAction(scope=part.AzureScope.MACHINES, action=action, parts=parts)


def _authorization(*parts: str) -> Iterator[AzureAction]:
    for scope in part.AzureScope:
        for each in ("roleAssignments", "roleDefinitions"):
            action = f"Microsoft.Authorization/{each}/read"
            yield AzureAction(scope=scope, action=action, parts=parts)


def _identity(action: str, *parts: str) -> AzureAction:
    action = f"Microsoft.ManagedIdentity/userAssignedIdentities/{action}"
    return AzureAction(scope=part.AzureScope.IDENTITY, action=action, parts=parts)


COMMANDS: Mapping[str, Needs] = {
    "enable": Needs(cluster=tuple(_enable())),
    "disable": Needs(
        cluster=tuple(_disable()), azure=tuple(_machines("read write", part.DETACH_ALL))
    ),
    "add": Needs(
        cluster=tuple(_add()),
        azure=(
            _identity("read", part.ATTACH, part.LOOK_UP),
            _identity("assign/action", part.ATTACH),
            *_machines("read write", part.ATTACH),
        ),
    ),
    "list": Needs(cluster=tuple(_list())),
    "delete": Needs(cluster=tuple(_delete()), azure=tuple(_machines("read write", part.DETACH))),
    "grant": Needs(cluster=tuple(_to_grant(bindings="get create patch"))),
    "revoke": Needs(cluster=tuple(_revoke())),
    "exception": Needs(cluster=tuple(_exception())),
    "explain": Needs(cluster=tuple(_explain()), azure=tuple(_machines("read", part.AZURE))),
    "check": Needs(
        cluster=tuple(_check()),
        azure=(
            _identity("federatedIdentityCredentials/read", part.AZURE),
            _identity("read", part.AZURE),
            *_machines("read", part.AZURE),
            *_authorization(part.MIC_ROLES),
        ),
    ),
    "check NAMESPACE": Needs(cluster=tuple(_check_namespace())),
    "check --pre": Needs(cluster=tuple(_check_pre())),
    "migrate": Needs(cluster=tuple(_migrate())),
    "mic": Needs(cluster=tuple(_mic())),
    "nodes": Needs(cluster=tuple(_nodes())),
    "version": Needs(cluster=tuple(_version())),
}
"""The commands that need a right; the others need none."""
