"""Namespaces, secrets, config maps, events and CSI drivers: the small rules that clients meet."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

# ---- Contents of secrets and config maps: which keys, how much, and immutability
#
# https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/core/validation/validation.go

LIMIT = 1024 * 1024
"""Bytes of all values together."""
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_WANTED = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
    "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


class _ContentStrategy(Strategy):
    """Values under keys of their own."""

    texts: tuple[str, ...] = ()
    """Fields whose values are text."""
    binary: tuple[str, ...] = ()
    """Those whose values are bytes, in base64."""
    measured = ""
    """The field that is too long, as the real server words a fault of the object as a whole."""

    def default(self, new: Obj) -> None:
        """Read the bytes; refuse what the real server's decoder cannot read: raise 400."""
        for value in (value for field in self.binary for value in new.get(field, {}).values()):
            try:
                base64.b64decode(value, validate=True)
            except binascii.Error as error:
                stray = _NOT_BASE64.search(value)
                place = stray.start() if stray else len(value) - len(value) % 4
                why = f"illegal base64 data at input byte {place}"
                raise status.undecodable(str(new["kind"]), "v1", why) from error

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check keys and size; nothing of an immutable one changes."""
        fields = (*self.texts, *self.binary)
        placed = ((field, key) for field in fields for key in new.get(field, {}))
        for field, key in placed:
            if not _KEY.fullmatch(key) or len(key) > 253 or key in (".", ".."):
                yield status.invalid(f"{field}[{key}]", key, _KEY_WANTED)
        size = sum(len(text.encode()) for f in self.texts for text in new.get(f, {}).values())
        size += sum(len(base64.b64decode(t)) for f in self.binary for t in new.get(f, {}).values())
        if size > LIMIT:
            yield status.too_long(self.measured, LIMIT)
        for field in ("immutable", *fields):
            if old is not None and old.get("immutable") and new.get(field) != old.get(field):
                yield status.forbidden_field(field, "field is immutable when `immutable` is set")


class ConfigMapStrategy(_ContentStrategy):
    """Texts and bytes."""

    texts, binary, measured = ("data",), ("binaryData",), "[]"

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """No key is among both."""
        yield from super().validate(new, old)
        for key in new.get("data", {}).keys() & new.get("binaryData", {}).keys():
            yield status.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")


# ---- Namespaces, secrets, events

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
        """Label it with its name."""
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
        """Begin the end."""
        new["status"]["phase"] = "Terminating"

    def holds(self, obj: Obj) -> bool:
        """Whether content may be left."""
        return bool(obj.get("spec", {}).get("finalizers"))


class SecretStrategy(_ContentStrategy):
    """stringData is written, data is read; the type never changes."""

    binary, measured = ("data",), "data"

    def default(self, new: Obj) -> None:
        """Fold stringData into data."""
        super().default(new)
        for key, text in new.pop("stringData", {}).items():
            new.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
        new.setdefault("type", "Opaque")

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check the type, too."""
        yield from super().validate(new, old)
        if old is not None and new["type"] != old["type"]:
            yield status.invalid("type", new["type"], "field is immutable")


class EventStrategy(Strategy):
    """An event lies in the namespace of its object; that of a node in `default`."""

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check where it lies."""
        del old
        about = new.get("involvedObject", {}).get("namespace", "")
        namespace = new["metadata"]["namespace"]
        if about != namespace and (about or namespace not in ("default", "kube-system")):
            detail = "does not match event.namespace"
            yield status.invalid("involvedObject.namespace", about, detail)


# ---- CSIDriver: what a storage driver demands of the kubelets.
#
# https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/csi-driver-v1/

_LIFECYCLE_MODES = ("Ephemeral", "Persistent")
_DEFAULTS = {
    "attachRequired": True,
    "podInfoOnMount": False,
    "storageCapacity": False,
    "requiresRepublish": False,
    "seLinuxMount": False,
    "fsGroupPolicy": "ReadWriteOnceWithFSType",
}


class DriverStrategy(Strategy):
    """Defaults, and what never changes."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults."""
        spec = new.setdefault("spec", {})
        for field, value in _DEFAULTS.items():
            spec.setdefault(field, value)
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check the modes."""
        spec = new["spec"]
        for mode in spec["volumeLifecycleModes"]:
            if mode not in _LIFECYCLE_MODES:
                yield status.unsupported("spec.volumeLifecycleModes", mode, _LIFECYCLE_MODES)
        for field in ("attachRequired", "volumeLifecycleModes"):
            if old is not None and spec[field] != old["spec"][field]:
                yield status.invalid(f"spec.{field}", spec[field], "field is immutable")
