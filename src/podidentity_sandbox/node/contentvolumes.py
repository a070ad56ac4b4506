"""Volumes of a pod whose files the kubelet itself writes, and writes again at each change.

A config map or secret that changes, a label, or a token that grows old: all of a volume's files
are replaced at once. What cannot be read any more leaves the files as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.api import ApiError
from podidentity_sandbox.node.contents import (
    KINDS,
    File,
    Material,
    Source,
    contents,
    references,
    sources_of,
)
from podidentity_sandbox.node.fields import pod_fields
from podidentity_sandbox.node.folders import write_all
from podidentity_sandbox.node.refusals import VolumeRefused
from podidentity_sandbox.node.security import user_of_all
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import PodSpec
from podidentity_sandbox.node.tokens import Token, request_token
from podidentity_sandbox.node.watched import Reference, Watched

_RENEWED_AT = 0.8
"""Share of a token's life after which a kubelet asks for another; after a day at the latest."""
_LONGEST = 24 * 3600.0


class ContentVolumes:
    """Those of one pod."""

    def __init__(self, spec: PodSpec, services: Services, folder: Path) -> None:
        self._spec = spec
        self._services = services
        self._folder = folder / "volumes"
        self._raw: Mapping[str, Any] = spec.raw
        self._address = ""
        self._changed = asyncio.Event()
        self._tokens: dict[tuple[str, int], Token] = {}
        self._volumes = {
            name: volume
            for name, volume in spec.volumes.items()
            if any(kind in volume for kind in KINDS)
        }
        self._watched: dict[Reference, Watched] = {}
        self._seen: list[int] = []
        self._written: dict[str, dict[str, File]] = {}

    def path(self, name: str) -> Path | None:
        """Return where a volume's files are; None for one that is not written here."""
        if name not in self._volumes:
            return None
        kind = next(kind for kind in KINDS if kind in self._volumes[name])
        return self._folder / f"kubernetes.io~{kind.lower()}" / name

    def observe(self, raw: Mapping[str, Any]) -> None:
        """Take note of the pod's object as it is now: files may show its labels."""
        before, self._raw = self._raw["metadata"], raw
        if any(raw["metadata"].get(k) != before.get(k) for k in ("labels", "annotations")):
            self._changed.set()

    async def fill(self, address: str) -> None:
        """Write all; raise VolumeRefused."""
        self._address = address
        for resource, name in references(self._sources()):
            reference = resource, self._spec.namespace, name
            if reference not in self._watched:
                self._watched[reference] = self._services.watched.follow(reference)
        for watched in self._watched.values():
            await watched.known()
        self._seen = self._versions()
        for name in self._volumes:
            await self._write(name)

    async def keep_fresh(self) -> None:
        """Write again what has changed, for ever."""
        while self._volumes:
            await self._news()
            self._changed.clear()
            self._seen = self._versions()
            for name in self._volumes:
                try:
                    await self._write(name)
                except (VolumeRefused, OSError) as error:
                    self._services.events.warn(self._spec, "FailedMount", str(error))

    async def close(self) -> None:
        """Follow nothing any more."""
        watched, self._watched = self._watched, {}
        for reference in watched:
            await self._services.watched.let_go(reference)

    def _sources(self) -> list[Source]:
        return [source for volume in self._volumes.values() for source in sources_of(volume)]

    async def _write(self, name: str) -> None:
        volume, now = self._volumes[name], self._services.clock.now()
        try:
            await self._refresh_tokens(sources_of(volume), now)
            files = contents(volume, self._material())
        except (VolumeRefused, ApiError) as error:
            why = f'MountVolume.SetUp failed for volume "{name}" : {error}'
            raise VolumeRefused(why) from error
        if self._written.get(name) == files:
            return
        path = self.path(name)
        assert path is not None  # noqa: S101 - only those of these kinds are here
        write_all(path, files, now, self._spec.security.get("fsGroup"))
        self._written[name] = files

    def _material(self) -> Material:
        raw = self._raw
        every = (*(raw["spec"].get("initContainers") or ()), *raw["spec"]["containers"])
        return Material(
            objects={(r, name): w.object for (r, _, name), w in self._watched.items()},
            fields=pod_fields(
                raw, pod_address=self._address, host_address=self._services.node.address
            ),
            containers={container["name"]: container for container in every},
            token=lambda audience, seconds: self._tokens[audience, seconds].text.encode(),
            user=user_of_all(raw["spec"]),
            group=self._spec.security.get("fsGroup"),
        )

    async def _refresh_tokens(self, sources: list[Source], now: datetime) -> None:
        for kind, said in sources:
            if kind != "serviceAccountToken":
                continue
            key = said.get("audience") or "", said.get("expirationSeconds") or 3600
            known = self._tokens.get(key)
            if known is None or _stale(known) <= now:
                self._tokens[key] = await request_token(self._services, self._spec, *key)

    async def _news(self) -> None:
        """Return when something that files are made of has changed, or a token is old."""
        if self._seen != self._versions():
            return
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._changed.wait())]
        waits += [asyncio.create_task(each.moved()) for each in self._watched.values()]
        if self._tokens:
            next_time = min(map(_stale, self._tokens.values()))
            left = (next_time - self._services.clock.now()).total_seconds()
            waits.append(asyncio.create_task(self._services.clock.sleep(max(left, 1.0))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _versions(self) -> list[int]:
        return [watched.version for watched in self._watched.values()]


def _stale(token: Token) -> datetime:
    """Return when a token is to be replaced."""
    life = (token.ends - token.began).total_seconds()
    return token.began + timedelta(seconds=min(life * _RENEWED_AT, _LONGEST))
