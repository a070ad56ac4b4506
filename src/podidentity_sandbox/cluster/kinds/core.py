"""Namespaces, secrets and events: the small rules that clients meet."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.kinds import payloads
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

NAME_LABEL = "kubernetes.io/metadata.name"
IMMORTAL = ("default", "kube-system", "kube-public")
"""Namespaces that are never deleted, as the plugin NamespaceLifecycle has it."""
EVENT_SHAPE = {
    "involvedObject": {"kind": str, "namespace": str, "name": str, "uid": str, "apiVersion": str},
    "source": {"component": str, "host": str},
    "reason": str,
    "message": str,
    "type": str,
    "count": int,
}
SELECTABLE_OF_EVENTS = {
    f"involvedObject.{field}": f"involvedObject.{field}"
    for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
} | {"reason": "reason", "type": "type", "source": "source.component"}


class NamespaceStrategy(Strategy):
    """A deleted namespace is Terminating until its content is gone: spec.finalizers holds it."""

    def default(self, new: Obj) -> None:
        """Label it with its name."""
        if name := new["metadata"].get("name"):
            new["metadata"].setdefault("labels", {})[NAME_LABEL] = name

    def prepare_create(self, new: Obj) -> None:
        """Make it Active, held by the namespace controller."""
        self.default(new)
        new["spec"] = {"finalizers": ["kubernetes"]}
        new["status"] = {"phase": "Active"}

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """Keep what only /finalize changes."""
        new["spec"] = old["spec"]

    def keeps(self, obj: Obj) -> str:
        """Keep what the system needs."""
        immortal = obj["metadata"]["name"] in IMMORTAL
        return "this namespace may not be deleted" if immortal else ""

    def prepare_deletion(self, new: Obj) -> None:
        """Begin the end."""
        new["status"]["phase"] = "Terminating"

    def holds(self, obj: Obj) -> bool:
        """Whether content may be left."""
        return bool(obj.get("spec", {}).get("finalizers"))


class SecretStrategy(Strategy):
    """stringData is written, data is read."""

    def default(self, new: Obj) -> None:
        """Fold stringData into data; raise 400 for data that is not base64."""
        data = new.get("data", {})
        payloads.check_base64("Secret", data.values())
        for key, text in new.pop("stringData", {}).items():
            data[key] = base64.b64encode(text.encode()).decode()
        if data:
            new["data"] = data
        new.setdefault("type", "Opaque")

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check keys and size. The type never changes, and nothing of an immutable secret."""
        faults = [*payloads.key_faults(new, "data")]
        if payloads.binary_size(new, "data") > payloads.LIMIT:
            faults.append(status.too_long("data", payloads.LIMIT))
        if old is None:
            return faults
        if new["type"] != old["type"]:
            faults.append(status.invalid("type", new["type"], "field is immutable"))
        if old.get("immutable") and (new.get("data"), new.get("immutable")) != (
            old.get("data"),
            True,
        ):
            detail = "field is immutable when `immutable` is set"
            faults.append(status.forbidden_field("data", detail))
        return faults


class EventStrategy(Strategy):
    """An event lies in the namespace of what it is about; of a node in `default`."""

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check where it lies."""
        del old
        about = new.get("involvedObject", {}).get("namespace", "")
        namespace = new["metadata"]["namespace"]
        if about == namespace or (not about and namespace in ("default", "kube-system")):
            return ()
        detail = "does not match event.namespace"
        return (status.invalid("involvedObject.namespace", about, detail),)
