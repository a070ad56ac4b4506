"""What `check` reads of a cluster: each object and list once, when a part of the check needs it.

Several parts need the same lists, and one that a person may not read is refused to each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.kube import Kube, together
from podidentity.cli.agent_choices import Choices
from podidentity.cli.checks.pods import asking
from podidentity.cli.checks.rules import matches
from podidentity.cli.cluster_rights import Single
from podidentity.cli.impostors import genuine
from podidentity.cli.local_redirect import backends
from podidentity.cli.mic import deployments_of_mic
from podidentity.cli.objects import (
    BINDINGS,
    CRDS,
    DAEMON_SETS,
    EVERY_POD,
    EXCEPTIONS,
    IDENTITIES,
    Object,
    find,
    find_all,
    list_parsed,
)
from podidentity.cli.rollout import OF_AGENTS, is_archived_nmi, nmi_of, pods_of_nmi
from podidentity.core.decision import Match
from podidentity.core.resources import AzurePodIdentityException, Malformed, Pod
from podidentity.manifests import crds
from podidentity.wire.kube import (
    EVENTS,
    KubeError,
    Page,
)
from podidentity.wire.reviews import parse_review

_T = TypeVar("_T")
_Ask = Callable[[str, Mapping[str, str] | None], Awaitable[_T]]
_REVIEWS_AT_ONCE = 16


class NotMade(Exception):
    """A check has nothing to look at; the message says why, as a clause."""


class ReadOnce(Kube):
    """A client that asks for each object and each list once, and repeats the answer afterwards."""

    def __init__(self, *args: Any, **given: Any) -> None:  # noqa: ANN401 - those of Kube
        super().__init__(*args, **given)
        self._answers: dict[tuple[str, str, str], Any] = {}

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """Return the object at `path` as JSON; raise KubeError."""
        return await self._once(super().get, path, params)

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        """Return the whole list; raise KubeError."""
        return await self._once(super().list_all, path, params)

    async def _once(self, ask: _Ask[_T], path: str, params: Mapping[str, str] | None) -> _T:
        asked = ask.__name__, path, str(sorted((params or {}).items()))
        if asked not in self._answers:
            try:
                self._answers[asked] = await ask(path, params)
            except KubeError as error:
                self._answers[asked] = error
        if isinstance(self._answers[asked], KubeError):
            raise self._answers[asked]
        answer: _T = self._answers[asked]
        return answer


@dataclass(slots=True)
class Reading:
    """A cluster as `check` reads it, with NMI's choices; all methods raise KubeError."""

    kube: Kube
    choices: Choices
    only: str = ""
    """The namespace that is looked at; "" for all."""
    _cluster: WatchedCluster | None = None
    _exceptions: list[AzurePodIdentityException | Malformed] = field(default_factory=list)
    _matches: list[Match] | None = None

    async def cluster(self) -> WatchedCluster:
        if self._cluster is None:
            exceptions, pods, identities, bindings = await together(
                list_parsed(self.kube, EXCEPTIONS, self.only),
                list_parsed(self.kube, EVERY_POD, self.only),
                list_parsed(self.kube, IDENTITIES, self.only),
                list_parsed(self.kube, BINDINGS, self.only),
            )
            self._exceptions = exceptions
            self._cluster = WatchedCluster.of(
                SystemClock(),
                pods=pods,
                identities=identities,
                bindings=bindings,
                exceptions=exceptions,
            )
        return self._cluster

    async def exceptions(self) -> list[AzurePodIdentityException | Malformed]:
        await self.cluster()
        return self._exceptions

    async def matches(self) -> list[Match]:
        if self._matches is None:
            self._matches = matches(await self.cluster(), self.choices.rules)
        return self._matches

    async def asking(self) -> list[Pod]:
        return asking(await self.matches())

    async def nmi(self) -> Object | None:
        return await nmi_of(self.kube, self.choices.namespace)

    async def agent(self) -> Object:
        """Return NMI's DaemonSet; raise NotMade without one."""
        found = await self.nmi()
        if found is None:
            raise NotMade("NMI is not in this cluster")
        return found

    async def agents_there(self) -> list[Object]:
        """Return NMI's pods; raise NotMade without one."""
        await self.agent()
        found = await self.agents()
        if not found:
            raise NotMade("NMI is on no node")
        return found

    async def mics(self) -> list[Object]:
        """Return MIC's Deployments; raise NotMade without one."""
        found = await deployments_of_mic(self.kube)
        if not found:
            raise NotMade("MIC is not in this cluster")
        return found

    async def archived_nmis(self) -> list[Object]:
        """Return the DaemonSets of AAD Pod Identity's NMI, and none that only has its labels."""
        found = await find_all(self.kube, DAEMON_SETS)
        return await genuine(self.kube, [each for each in found if is_archived_nmi(each)])

    async def definitions(self) -> dict[str, Object | None]:
        """Return our custom resources by name, as the cluster knows them; None: not there."""
        names = [each["metadata"]["name"] for each in crds()]
        return {name: await find(self.kube, CRDS, "", name) for name in names}

    async def reviewed(
        self, path: str, review: Callable[[Single], Object], rights: Sequence[Single]
    ) -> dict[Single, bool]:
        """Return which rights somebody has, as the API server decides by reviews at `path`."""
        places = asyncio.Semaphore(_REVIEWS_AT_ONCE)

        async def ask(right: Single) -> bool:
            async with places:
                return parse_review(await self.kube.ask(path, review(right)))

        return dict(zip(rights, await together(*map(ask, rights)), strict=True))

    async def agents(self) -> list[Object]:
        return await pods_of_nmi(self.kube, self.choices.namespace)

    async def told(self) -> list[Object]:
        namespace = self.choices.namespace
        return await find_all(self.kube, EVENTS, namespace, fieldSelector=OF_AGENTS)

    async def backends(self) -> dict[str, str]:
        """Return for each node with NMI what leads requests to it, "" where nothing is known."""
        return backends(await self.agents(), await self.told(), self.now)

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return SystemClock().time()
