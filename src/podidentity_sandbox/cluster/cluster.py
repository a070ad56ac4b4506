"""The cluster without HTTP: everything that the server serves, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from cryptography.hazmat.primitives.asymmetric import rsa

from podidentity_sandbox.cluster import Obj, admission, bootstrap
from podidentity_sandbox.cluster.admission_policies import AdmissionPolicies
from podidentity_sandbox.cluster.authentication import Authenticator, User
from podidentity_sandbox.cluster.authorization import Authorization
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
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.registry import Registry
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.reviews import TYPES, Reviews
from podidentity_sandbox.cluster.storage import HISTORY, Journal, Storage
from podidentity_sandbox.cluster.tokens import TokenIssuer, request_token
from podidentity_sandbox.plan import Plan


@dataclass(frozen=True, slots=True)
class Action:
    """A POST that stores nothing."""

    kind: str
    """Its body's."""
    answer: Callable[[User, RequestInfo, Obj], Obj]


def clock() -> datetime:
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
    ) -> None:
        """`authority` is the PEM of the certificate authority that pods are to trust.

        Without a `journal` the cluster is new, and gone with its process.
        """
        self.plan = plan
        self.storage = Storage(history=history)
        self.registry = Registry((*BUILT_IN, *TYPES))
        self.resources = Resources(self.storage, self.registry, now)
        for admit in (admission.check, networks.allocate):
            self.resources.admissions.append(partial(admit, self.storage))
        self.issuer = TokenIssuer(key, now)
        self.authenticator = Authenticator(plan, self.issuer, self.storage)
        self.authorizer = Authorization(self.storage)
        self.policies = AdmissionPolicies(self.storage)
        reviews = Reviews(self.authorizer, self.authenticator)
        self.loop = Loop(
            self.storage,
            (
                Definitions(self.resources),
                Namespaces(self.resources, authority),
                Deployments(self.resources),
                ReplicaSets(self.resources),
                DaemonSets(self.resources),
                Scheduler(self.resources),
                NodeLifecycle(self.resources, later),
                Garbage(self.resources),
            ),
        )
        by_review = {
            "TokenReview": reviews.token,
            "SelfSubjectReview": reviews.who,
            "SubjectAccessReview": reviews.subject,
            "SelfSubjectAccessReview": reviews.oneself,
        }
        self._actions = {
            ("", "serviceaccounts", "token"): Action("TokenRequest", self._token),
            **{(t.group, t.plural, ""): Action(t.kind, by_review[t.kind]) for t in TYPES},
        }
        if journal is not None:
            journal.restore(self.storage)
        self._bootstrap()

    def action(self, info: RequestInfo) -> Action | None:
        """Return what answers a request without storing anything, None if nothing does."""
        if info.verb != "create":
            return None
        return self._actions.get((info.group, info.resource, info.subresource))

    def _bootstrap(self) -> None:
        for key, body in bootstrap.objects():
            namespace = body["metadata"].get("namespace", "")
            if self.storage.get(key, namespace, body["metadata"]["name"]) is None:
                self.resources.create(key, namespace, body)
        self.loop.settle()

    def _token(self, user: User, info: RequestInfo, body: Obj) -> Obj:
        account = self.resources.get("serviceaccounts", info.namespace, info.name)
        self.policies.check_token(user, info, body)
        audiences = self.authenticator.audiences[:1]
        return request_token(self.storage, self.issuer, audiences, account, body)
