"""What the rules say of the pod and its identities: each reason for which they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from podidentity.core.attestation import Trust, Verdict
from podidentity.core.decision import Ambiguity, Rules
from podidentity.core.delegation import CSI_DRIVER
from podidentity.core.refusals import Reason
from podidentity.core.resources import (
    Authority,
    AzurePodIdentityException,
    ClientId,
    Malformed,
    ObjectRef,
    Phase,
    WorkloadIdentity,
)
from podidentity.nmi.request.decision import DecisionPolicy
from podidentity.nmi.request.hold import HoldTimes
from tests.core.objects import principal
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, assigned, binding, identity, pod
from tests.nmi.golden.situation import ORDERS, WORLD, Situation, asking

LONG_AGO = replace(ORDERS, started=NOW - 3600)
PLAIN = replace(ORDERS, labels={"tier": "web"})
SECOND = identity("second", client_id=ClientId.parse(OTHER_CLIENT), resource_id=None)
TWO = (*WORLD, SECOND, binding("second-binding", identity="second"))
EXCEPTION = AzurePodIdentityException(
    ref=ObjectRef("shop", "web"),
    pod_labels={"tier": "web"},
    identities=(ClientId.parse(OTHER_CLIENT),),
)
OTHER = asking(client_id=OTHER_CLIENT)
EXCEPTING = DecisionPolicy(rules=Rules(exception_namespaces=frozenset({"shop"})))
STANDARD = DecisionPolicy(rules=Rules(standard=True))
HASTY = DecisionPolicy(hold=HoldTimes(change=0))
MOUNTS = replace(ORDERS, csi_drivers=frozenset({CSI_DRIVER}))
ZTUNNEL = pod(
    "ztunnel-x",
    ref=ObjectRef("istio-system", "ztunnel-x"),
    service_account="ztunnel",
    addresses=("10.0.0.3",),
)
MESH = Trust(proxies=(ZTUNNEL.account,))
BEHIND = {"verdict": Verdict.PROXIED, "owner": ORDERS.uid, "proxy": ZTUNNEL.uid}
PROVIDER = pod(
    "provider",
    ref=ObjectRef("kube-system", "provider"),
    service_account="csi-secrets-store-provider-azure",
    host_network=True,
)


def _refused(reason: Reason, *objects: Any, **more: Any) -> Situation:
    found: dict[str, Any] = {"policy": HASTY, **more}
    return Situation(objects=objects, why=str(reason), **found)


def _bound(found: Any) -> tuple[Any, ...]:
    return (LONG_AGO, binding(), found)


def host(*objects: Any, **more: Any) -> Situation:
    """Return a situation of the CSI driver's provider, which asks for orders-0."""
    found = {"owner": PROVIDER.uid, "target": HOST, "headers": NAMED, **more}
    return Situation(objects=(PROVIDER, *objects), **found)


HOST = "/host/token/?resource=https://vault.azure.net"
NAMED = ("Podname: orders-0", "Podns: shop")
SITUATIONS: dict[str, Situation] = {
    "a pod without a label": _refused(Reason.NO_LABEL, PLAIN),
    "an exception that has no effect here": _refused(Reason.EXCEPTION_IGNORED, PLAIN, EXCEPTION),
    "no binding": _refused(Reason.NO_BINDING, LONG_AGO, identity()),
    "no binding, within the hold": _refused(
        Reason.NO_BINDING, replace(ORDERS, started=NOW - 3), policy=DecisionPolicy(), waits=5
    ),
    "no binding, with the old header": _refused(
        Reason.NO_BINDING, LONG_AGO, routes={"retry_after_header": True}
    ),
    "a binding in another namespace": _refused(
        Reason.OTHER_NAMESPACE, LONG_AGO, binding(ref=ObjectRef("bank", "b"))
    ),
    "no identity": _refused(Reason.NO_IDENTITY, LONG_AGO, binding()),
    "a malformed binding": _refused(
        Reason.MALFORMED_BINDING,
        LONG_AGO,
        Malformed(
            ref=ObjectRef("shop", "b"),
            kind="AzureIdentityBinding",
            why="spec.azureIdentity is missing",
            selector="orders",
        ),
    ),
    "a malformed identity": _refused(
        Reason.MALFORMED_IDENTITY,
        *_bound(
            Malformed(
                ref=ObjectRef("shop", "orders"),
                kind="AzureIdentity",
                why="spec.clientID must be a GUID, not 'x'",
            )
        ),
    ),
    "an unknown authority": _refused(
        Reason.UNKNOWN_AUTHORITY,
        *_bound(principal("shop", "orders", authority=Authority.parse("https://evil.example"))),
    ),
    "a secret of another namespace": _refused(
        Reason.FOREIGN_SECRET, *_bound(principal("shop", "orders", secret=ObjectRef("bank", "s")))
    ),
    "a service account without a tenant": _refused(
        Reason.NO_TENANT,
        PLAIN,
        WorkloadIdentity(
            ref=ObjectRef("shop", "default"), client_id=ClientId.parse(CLIENT), tenant=None
        ),
    ),
    "not assigned, nobody has begun": _refused(
        Reason.NOT_ASSIGNED, LONG_AGO, *WORLD[1:], policy=STANDARD, waits=80
    ),
    "not assigned, begun": _refused(
        Reason.NOT_ASSIGNED,
        LONG_AGO,
        *WORLD[1:],
        assigned(state="Created"),
        policy=STANDARD,
        waits=100,
    ),
    "not permitted": _refused(
        Reason.NOT_PERMITTED, *TWO, denied=(CLIENT,), target=asking(client_id=CLIENT)
    ),
    "nothing permitted": _refused(Reason.NOT_PERMITTED, *TWO, denied=(CLIENT, OTHER_CLIENT)),
    "an id of somebody else": _refused(Reason.NOT_AMONG, *WORLD, target=OTHER),
    "an id that the exception does not list": _refused(
        Reason.NOT_AMONG, PLAIN, EXCEPTION, policy=EXCEPTING, target=asking(client_id=CLIENT)
    ),
    "several identities, with --ambiguous=reject": _refused(
        Reason.AMBIGUOUS, *TWO, policy=DecisionPolicy(ambiguity=Ambiguity.REJECT)
    ),
    "a connection that is not the pod's": Situation(verdict=Verdict.FORGED, why="UnprovenCaller"),
    "a connection of another pod": Situation(
        objects=(*WORLD, pod("another", uid="another", addresses=("10.0.0.2",))),
        owner="another",
        why="UnprovenCaller",
    ),
    "a connection that a proxy made": _refused(Reason.MADE_BY_PROXY, *WORLD, ZTUNNEL, **BEHIND),
    "a connection that a trusted proxy made, of a contested address": _refused(
        Reason.ADDRESS_CONTESTED, *WORLD, ZTUNNEL, routes={"trust": MESH}, holders=2, **BEHIND
    ),
    "an unseen connection of a runtime class": _refused(
        Reason.RUNTIME_CLASS,
        replace(ORDERS, runtime_class="kata"),
        verdict=Verdict.FORGED,
        owner="",
        unseen=True,
    ),
    "two pods with one address": Situation(
        objects=(ORDERS, replace(ORDERS, ref=ObjectRef("shop", "b"), uid="b")),
        owner="",
        why="UnprovenCaller",
    ),
    "a connection that cannot be proved for a moment": Situation(
        verdict=Verdict.UNKNOWN, why="NotReady"
    ),
    "an address of no pod": Situation(
        objects=(pod(addresses=("10.0.0.1",)),), waits=2, why="UnknownCaller"
    ),
    "an authority of another tenant": Situation(
        objects=_bound(principal("shop", "orders")),
        target=asking(authority="https://login.microsoftonline.com/other.example"),
        why="InvalidRequest",
    ),
    "host: headers that are missing": host(MOUNTS, headers=(), why="InvalidRequest"),
    "host: not a provider": host(
        MOUNTS, pod("web", uid="web"), owner="web", why=str(Reason.NOT_A_PROVIDER)
    ),
    "host: nobody's process": host(MOUNTS, owner="", why=str(Reason.NOT_A_PROVIDER)),
    "host: not proved": host(MOUNTS, verdict=Verdict.FORGED, why="UnprovenCaller"),
    "host: no such pod": host(waits=2, why="UnknownCaller"),
    "host: no volume": host(ORDERS, why=str(Reason.NO_CSI_VOLUME)),
    "host: no label": host(replace(MOUNTS, labels={}), why=str(Reason.NO_LABEL)),
    "host: a pod of the node's network": host(
        replace(MOUNTS, host_network=True), why=str(Reason.HOST_NETWORK)
    ),
    "host: a pod that has ended": host(replace(MOUNTS, phase=Phase.SUCCEEDED), why="UnknownCaller"),
}
