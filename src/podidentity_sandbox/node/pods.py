"""A pod's life on this node: from its first appearance to the report that nothing of it is left.

    network, volumes → init containers in order → containers → (deleted) → stopped → cleared → gone

Each pod is one task, and each of its steps is repeated until it succeeds. An absence of the API
server delays reports, never the pod. The object is deleted only when its programs have ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.node.containers import Container, PodResources
from podidentity_sandbox.node.network import Attachment, NetworkFailed
from podidentity_sandbox.node.reports import PodReports
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import VolumeRefused, grace_of, parse_pod
from podidentity_sandbox.node.status import pod_status
from podidentity_sandbox.node.volumes import PodVolumes

_log = logging.getLogger(__name__)

_ENDED = {"Succeeded", "Failed"}
_LONGEST_PAUSE = 122.0
"""Seconds between attempts to set up a volume, as the kubelet's."""
_FORCED_GRACE = 1.0
"""Seconds that the programs of a pod have whose object is gone already."""


class Pod:
    """One pod of this node."""

    def __init__(self, raw: Mapping[str, Any], services: Services) -> None:
        self.spec = parse_pod(raw)
        self._services = services
        known = raw.get("status") or {}
        self._had_ended = known.get("phase") in _ENDED
        self._reports = PodReports(self.spec, services.api, known, self._status)
        self._volumes = PodVolumes(self.spec, services)
        self._attachment: Attachment | None = None
        self._address = ""
        self._started = datetime.now(UTC)
        self._initialized = not self.spec.init_containers
        self._failed = False
        self._grace = self.spec.grace
        self._deleted = asyncio.Event()
        self._hurry = asyncio.Event()
        self._vanished = False
        self._inits, self._containers = (
            [services.container(one, self.spec, services, self._reports.due.set) for one in specs]
            for specs in (self.spec.init_containers, self.spec.containers)
        )

    def observe(self, raw: Mapping[str, Any]) -> None:
        if raw["metadata"].get("deletionTimestamp"):
            grace = grace_of(raw)
            if self._deleted.is_set() and grace < self._grace:
                self._hurry.set()
            self._grace = min(grace, self._grace) if self._deleted.is_set() else grace
            self._deleted.set()

    def vanish(self) -> None:
        """Take note that the object is gone: end the programs, report nothing."""
        self._vanished = True
        self._grace = min(self._grace, _FORCED_GRACE)
        if self._deleted.is_set():
            self._hurry.set()
        self._deleted.set()

    def container(self, name: str | None) -> Container:
        """Return the container of that name, or the first; raise KeyError."""
        if not name:
            return self._containers[0]
        return {c.spec.name: c for c in (*self._inits, *self._containers)}[name]

    async def run(self) -> None:
        """Live, and return when nothing of the pod is left."""
        publisher = asyncio.create_task(self._reports.run())
        life = asyncio.create_task(self._live())
        life.add_done_callback(self._report_bug)
        deleted = asyncio.create_task(self._deleted.wait())
        try:
            await asyncio.wait([life, deleted], return_when=asyncio.FIRST_COMPLETED)
            if life.done() and life.exception() is None:
                await self._clear()  # it ended by itself, and its object stays
            await deleted
            life.cancel()
            await asyncio.wait([life])
            await asyncio.gather(
                *(c.stop(self._grace, self._hurry) for c in (*self._inits, *self._containers))
            )
            await self._clear()
        finally:
            for task in (life, publisher, deleted):
                task.cancel()
            await asyncio.gather(life, publisher, deleted, return_exceptions=True)
        # A pod that had ended before this kubelet came keeps its status.
        if not self._vanished and (self._had_ended or await self._reports.report()):
            await self._reports.delete()

    async def _live(self) -> None:
        if self._had_ended:
            return
        self._reports.due.set()
        resources = await self._prepare()
        self._reports.due.set()
        async with asyncio.TaskGroup() as group:
            fresh = group.create_task(self._volumes.keep_fresh())
            await self._run_all(resources)
            fresh.cancel()

    async def _run_all(self, resources: PodResources) -> None:
        # An init container of a pod that always restarts is run again until it succeeds.
        policy = "Never" if self.spec.restart_policy == "Never" else "OnFailure"
        for container in self._inits:
            if await container.keep_running(resources, policy):
                self._failed = True
                self._reports.due.set()
                return
            container.state.ready = True
        self._initialized = True
        self._reports.due.set()
        async with asyncio.TaskGroup() as group:
            for container in self._containers:
                group.create_task(container.keep_running(resources, self.spec.restart_policy))

    async def _prepare(self) -> PodResources:
        """Make network and volumes, again until they are there."""
        pause = 0.5
        events = self._services.events
        while True:
            try:
                await self._attach()
                await self._volumes.open(self._address)
                return PodResources(
                    pod=self.spec,
                    address=self._address,
                    network=self._attachment.namespace if self._attachment else "",
                    volumes=self._volumes,
                )
            except NetworkFailed as error:
                events.warn(self.spec, "FailedCreatePodSandBox", str(error))
            except (VolumeRefused, OSError) as error:
                events.warn(self.spec, "FailedMount", str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _attach(self) -> None:
        if self._attachment is None:
            task = asyncio.create_task(self._services.network.attach(self.spec))
            try:
                self._attachment = await asyncio.shield(task)
            except asyncio.CancelledError:
                # Deleted meanwhile: the attachment must be known, so that it can be removed.
                with suppress(NetworkFailed):
                    self._attachment = await task
                raise
            self._address = self._attachment.address

    async def _clear(self) -> None:
        """Remove all that the pod had on the node; its programs have ended."""
        attachment, self._attachment = self._attachment, None
        try:
            if attachment is not None:
                await self._services.network.detach(attachment)
            self._services.cgroups.remove(self.spec.cgroup)
            await self._volumes.close()
        except (NetworkFailed, OSError) as error:
            # Its programs have ended, as a termination promises.
            _log.error("%s: something of it remains: %s", self.spec.label, error)

    def _status(self, previous: Mapping[str, Any]) -> dict[str, Any]:
        return pod_status(
            self.spec,
            [c.state for c in self._inits],
            [c.state for c in self._containers],
            host_address=self._services.node.address,
            pod_address=self._address,
            started=self._started,
            initialized=self._initialized,
            failed=self._failed,
            previous=previous,
            now=datetime.now(UTC),
        )

    def _report_bug(self, life: asyncio.Task[None]) -> None:
        if not life.cancelled() and (error := life.exception()) is not None:
            _log.error("%s: stopped looking after it", self.spec.label, exc_info=error)
            self._services.events.warn(self.spec, "FailedSync", f"error syncing pod: {error}")
