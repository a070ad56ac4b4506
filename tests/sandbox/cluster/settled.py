"""A cluster without HTTP whose controllers finish each step before the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.main import make_cluster
from podidentity_sandbox.cluster.patch.patches import merge
from podidentity_sandbox.cluster.resources import Deletion
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Journal, Record


class Settled:
    """A cluster without HTTP, settled after each step."""

    def __init__(self, folder: Path, journal: Journal | None = None) -> None:
        """With a journal it has what an earlier one of the same journal had."""
        self.late = timedelta()
        """How far its clock is ahead."""
        self.cluster: Cluster = make_cluster(folder, journal, now=self._now)

    def _now(self) -> datetime:
        return datetime.now(UTC) + self.late

    def create(self, key: str, body: Obj, namespace: str = "default") -> Record:
        kind = self.cluster.registry.by_key(key)
        made = self.cluster.resources.create(kind, namespace if kind.namespaced else "", body)
        self.cluster.loop.settle()
        return made

    def get(self, key: str, name: str, namespace: str = "default") -> Record | None:
        place = namespace if self.cluster.registry.by_key(key).namespaced else ""
        return self.cluster.storage.get(key, place, name)

    def the(self, key: str, name: str, namespace: str = "default") -> Record:
        """Return an object that is there."""
        record = self.get(key, name, namespace)
        assert record is not None
        return record

    def refused(self, key: str, body: Obj) -> str:
        """Return the words of the refusal of an object that makes no sense."""
        with pytest.raises(StatusError) as refusal:
            self.create(key, body)
        assert refusal.value.code == 422
        return refusal.value.message

    def patch(
        self, key: str, name: str, patch: Obj, subresource: str = "", *, namespace: str = "default"
    ) -> None:
        record = self.the(key, name, namespace)
        kind = self.cluster.registry.by_key(key)
        body = merge(record.thaw(), patch)
        self.cluster.resources.update(kind, record, body, subresource=subresource)
        self.cluster.loop.settle()

    def delete(self, key: str, name: str, namespace: str = "default", **how: Any) -> None:
        self.cluster.resources.delete(key, self.the(key, name, namespace), Deletion(**how))
        self.cluster.loop.settle()

    def node(self, name: str, *, ready: bool = True, **metadata: Any) -> None:
        state = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        self.create("nodes", {"metadata": {"name": name, **metadata}, "status": state})

    def pods(self) -> dict[str, str]:
        """Return the nodes of all living pods, by name."""
        living = [p for p in self.cluster.storage.all("pods") if not p.deleted]
        return {p.name: p.object["spec"].get("nodeName", "") for p in living}

    def run(self, name: str) -> None:
        """Say that a pod runs, as its kubelet does."""
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.patch("pods", name, {"status": ready}, "status")


NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
READY = [{"type": "Ready", "status": "True"}]
