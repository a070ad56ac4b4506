"""Namespaces, secrets, events and CSI drivers: the small rules that clients meet."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

NAME_LABEL = "kubernetes.io/metadata.name"
IMMORTAL = ("default", "kube-system", "kube-public")
"""Namespaces that are never deleted, as the plugin NamespaceLifecycle has it."""
SELECTABLE_OF_EVENTS = {
    f"involvedObject.{field}": f"involvedObject.{field}"
    for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
} | {"reason": "reason", "type": "type", "source": "source.component"}


class NamespaceStrategy(Strategy):
    """A deleted namespace is Terminating until its content is gone: spec.finalizers holds it."""

    def default(self, new: Obj) -> None:
        if name := new["metadata"].get("name"):
            new["metadata"].setdefault("labels", {})[NAME_LABEL] = name

    def prepare_create(self, new: Obj) -> None:
        """Make it Active, held by the namespace controller."""
        new["spec"] = {"finalizers": ["kubernetes"]}
        new["status"] = {"phase": "Active"}

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """Keep what only /finalize changes."""
        new["spec"] = old["spec"]

    def keeps(self, obj: Obj) -> str:
        """Keep the namespaces that the system needs."""
        immortal = obj["metadata"]["name"] in IMMORTAL
        return "this namespace may not be deleted" if immortal else ""

    def prepare_deletion(self, new: Obj) -> None:
        new["status"]["phase"] = "Terminating"

    def holds(self, obj: Obj) -> bool:
        """Whether content may be left."""
        return bool(obj.get("spec", {}).get("finalizers"))


class SecretStrategy(Strategy):
    """stringData is written, data is read; the type never changes."""

    def default(self, new: Obj) -> None:
        for key, text in new.pop("stringData", {}).items():
            new.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
        new.setdefault("type", "Opaque")

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        if old is not None and new["type"] != old["type"]:
            yield status.invalid("type", new["type"], "field is immutable")
        for key, value in new.get("data", {}).items():
            try:
                base64.b64decode(value, validate=True)
            except binascii.Error as error:
                yield status.invalid(f"data[{key}]", "", f"illegal base64 data: {error}")


class EventStrategy(Strategy):
    """An event lies in the namespace of its object; that of a node in `default`."""

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        del old
        about = new.get("involvedObject", {}).get("namespace", "")
        namespace = new["metadata"]["namespace"]
        if about != namespace and (about or namespace not in ("default", "kube-system")):
            detail = "does not match event.namespace"
            yield status.invalid("involvedObject.namespace", about, detail)


# ---- CSIDriver: what a storage driver demands of the kubelets.
#
# https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/csi-driver-v1/


class DriverStrategy(Strategy):
    """What kubelets ask after."""

    def default(self, new: Obj) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("podInfoOnMount", False)
        spec.setdefault("requiresRepublish", False)
        spec.setdefault("volumeLifecycleModes", ["Persistent"])
