"""The cluster without HTTP: everything that the server serves, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from cryptography.hazmat.primitives.asymmetric import rsa

from podidentity_sandbox.cluster import Obj, admission, bootstrap, node_restriction
from podidentity_sandbox.cluster.admission_policies import POLICY_TYPES, AdmissionPolicies
from podidentity_sandbox.cluster.authentication import Authenticator, User
from podidentity_sandbox.cluster.authorization import RBAC_TYPES, Authorization, node_of
from podidentity_sandbox.cluster.certificates import ClientCertificates
from podidentity_sandbox.cluster.controllers.daemonsets import DaemonSets
from podidentity_sandbox.cluster.controllers.definitions import Definitions
from podidentity_sandbox.cluster.controllers.deployments import Deployments
from podidentity_sandbox.cluster.controllers.garbage import Garbage
from podidentity_sandbox.cluster.controllers.loop import Loop, later
from podidentity_sandbox.cluster.controllers.namespaces import Namespaces
from podidentity_sandbox.cluster.controllers.nodes import NodeLifecycle
from podidentity_sandbox.cluster.controllers.replicasets import ReplicaSets
from podidentity_sandbox.cluster.controllers.scheduler import Scheduler
from podidentity_sandbox.cluster.kinds import networks
from podidentity_sandbox.cluster.kinds.table import BUILT_IN
from podidentity_sandbox.cluster.overload import LateReads
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.registry import Registry
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.reviews import AUTHENTICATION, TYPES, Reviews
from podidentity_sandbox.cluster.storage import HISTORY, Journal, Storage
from podidentity_sandbox.cluster.tokens import TokenIssuer, request_token
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import WeatherInForce


@dataclass(frozen=True, slots=True)
class Action:
    """A POST that stores nothing."""

    group: str
    """The API group of its body."""
    kind: str
    answer: Callable[[User, RequestInfo, Obj], Obj]


AUDIENCES_RESTRICTED_SINCE = 33
"""The minor version in which a node may not ask for any audience."""


def clock() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class Cluster:
    """One cluster, in memory."""

    def __init__(
        self,
        plan: Plan,
        key: rsa.RSAPrivateKey,
        *,
        authority: str = "",
        journal: Journal | None = None,
        now: Callable[[], datetime] = clock,
        history: int = HISTORY,
        weather: WeatherInForce | None = None,
    ) -> None:
        """`authority` is the PEM of the certificate authority that pods are to trust.

        Without a `journal` the cluster is new, and gone with its process.
        """
        self.plan = plan
        self.weather = weather or WeatherInForce()
        self.storage = Storage(history=history)
        self.registry = Registry((*BUILT_IN, *TYPES))
        self.resources = Resources(self.storage, self.registry, now)
        for admit in (admission.check, networks.allocate):
            self.resources.admissions.append(partial(admit, self.storage))
        self.issuer = TokenIssuer(key, now)
        self.authenticator = Authenticator(plan, self.issuer, self.storage)
        self.certificates = ClientCertificates(authority, now)
        heard = LateReads(self.storage, RBAC_TYPES, partial(self.weather.seconds, "rbac"), now)
        self.authorizer = Authorization(self.storage, heard)
        policies = partial(self.weather.seconds, "policies")
        known = LateReads(self.storage, POLICY_TYPES, policies, now)
        self.policies = AdmissionPolicies(self.storage, known)
        manager = self.resources.acting_as("kube-controller-manager")
        reviews = Reviews(self.authorizer, self.authenticator)
        self.loop = Loop(
            self.storage,
            (
                Definitions(
                    self.resources.acting_as("kube-apiserver"), partial(self._late, "definitions")
                ),
                Namespaces(manager, authority),
                Deployments(manager),
                ReplicaSets(manager),
                DaemonSets(manager),
                Scheduler(self.resources.acting_as("kube-scheduler")),
                NodeLifecycle(manager, later),
                Garbage(manager, partial(self._late, "garbage")),
            ),
        )
        by_review = {
            "TokenReview": reviews.token,
            "SelfSubjectReview": reviews.who,
            "SubjectAccessReview": reviews.subject,
            "LocalSubjectAccessReview": reviews.subject,
            "SelfSubjectAccessReview": reviews.oneself,
            "SelfSubjectRulesReview": reviews.rules,
        }
        self._actions = {
            ("", "serviceaccounts", "token"): Action(AUTHENTICATION, "TokenRequest", self._token),
            **{(t.group, t.plural, ""): Action(t.group, t.kind, by_review[t.kind]) for t in TYPES},
        }
        if journal is not None:
            journal.restore(self.storage)
        heard.listen()
        known.listen()
        self._bootstrap()

    def action(self, info: RequestInfo) -> Action | None:
        """Return what answers a request without storing anything, None if nothing does."""
        if info.verb != "create":
            return None
        return self._actions.get((info.group, info.resource, info.subresource))

    def _late(self, time: str, what: Callable[[], None]) -> None:
        """Do something after the seconds that the weather has for it."""
        if seconds := self.weather.seconds(time):
            later(seconds, what)
        else:
            what()

    def _bootstrap(self) -> None:
        """Create the objects of a new cluster."""
        resources = self.resources.acting_as("kube-apiserver")
        for key, body in bootstrap.objects():
            namespace = body["metadata"].get("namespace", "")
            if self.storage.get(key, namespace, body["metadata"]["name"]) is None:
                resources.create(key, namespace, body)
        self.loop.settle()

    def _token(self, user: User, info: RequestInfo, body: Obj) -> Obj:
        account = self.resources.get("serviceaccounts", info.namespace, info.name)
        if node := node_of(user):
            node_restriction.check_token(
                self.storage, node, account, body, may=self._audiences(user, info)
            )
        self.policies.check_token(user, info, body)
        audiences = self.authenticator.audiences[:1]
        return request_token(self.storage, self.issuer, audiences, account, body)

    def _audiences(self, user: User, info: RequestInfo) -> Callable[[str], bool] | None:
        """Return whether a node may ask for an audience by a right, whose resource is its name."""
        if self.plan.kubernetes_minor < AUDIENCES_RESTRICTED_SINCE:
            return None

        def may(audience: str) -> bool:
            verb = "request-serviceaccounts-token-audience"
            asked = replace(info, verb=verb, group="", resource=audience, subresource="")
            return self.authorizer.decide(user, asked).allowed

        return may
