"""Events of the server's own controllers and of its scheduler, as `kubectl describe` shows them.

The same event about the same object is counted, not written again:
https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/client-go/tools/record/events_cache.go
"""

from __future__ import annotations

from podidentity_sandbox.cluster import objects
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Record

KEY = "events"
_MOST_KNOWN = 4096
"""Events that are counted on, as many as a client remembers; the oldest are forgotten first."""

Sameness = tuple[str, str, str, str]
"""uid, type, reason and message."""


class Recorder:
    """Writes events for one component."""

    def __init__(self, resources: Resources, component: str) -> None:
        self._resources = resources
        self._component = component
        self._known: dict[Sameness, str] = {}
        self._serial = 0

    def tell(self, about: Record, reason: str, message: str) -> None:
        self._report("Normal", about, reason, message)

    def warn(self, about: Record, reason: str, message: str) -> None:
        self._report("Warning", about, reason, message)

    def _report(self, kind: str, about: Record, reason: str, message: str) -> None:
        namespace = about.namespace or "default"
        same = about.uid, kind, reason, message
        earlier = self._resources.storage.get(KEY, namespace, self._known.get(same, ""))
        if earlier is not None:
            self._count(earlier)
            return
        now = self._resources.now()
        stamp = objects.stamp(now)
        self._serial += 1
        name = f"{about.name[:200]}.{int(now.timestamp() * 1e9) + self._serial:x}"
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "kind": about.object["kind"],
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
                "apiVersion": about.object["apiVersion"],
                "resourceVersion": about.metadata["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "eventTime": None,
            "count": 1,
        }
        try:
            self._resources.create(KEY, namespace, body)
        except StatusError:  # a namespace that terminates takes no more
            return
        self._known[same] = name
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _count(self, earlier: Record) -> None:
        new = earlier.thaw()
        new["count"] = new.get("count", 1) + 1
        new["lastTimestamp"] = objects.stamp(self._resources.now())
        self._resources.settle(KEY, earlier, new)
