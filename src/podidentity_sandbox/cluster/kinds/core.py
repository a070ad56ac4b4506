"""Namespaces, secrets, config maps, events and CSI drivers: the small rules that clients meet."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence

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
_FIXED = "field is immutable when `immutable` is set"


def key_faults(obj: Obj, field: str) -> Iterator[Cause]:
    """Yield the faults of the keys of a field."""
    for key in obj.get(field) or {}:
        if not _KEY.fullmatch(key) or len(key) > 253 or key in (".", ".."):
            yield status.invalid(f"{field}[{key}]", key, _KEY_WANTED)


def size(obj: Obj) -> int:
    """Return the bytes of all values."""
    texts = sum(len(text.encode()) for text in (obj.get("data") or {}).values())
    return texts + binary_size(obj, "binaryData")


def binary_size(obj: Obj, field: str) -> int:
    """Return the bytes of the values of a field that stand there in base64."""
    return sum(len(base64.b64decode(text)) for text in (obj.get(field) or {}).values())


def check_base64(kind: str, values: Iterable[str]) -> None:
    """Refuse values that the real server's decoder cannot read: raise 400."""
    for value in values:
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error as error:
            stray = _NOT_BASE64.search(value)
            place = stray.start() if stray else len(value) - len(value) % 4
            raise status.bad_request(
                f'{kind} in version "v1" cannot be handled as a {kind}: '
                f"illegal base64 data at input byte {place}"
            ) from error


class ConfigMapStrategy(Strategy):
    """Texts and bytes under keys of their own."""

    def prepare_create(self, new: Obj) -> None:
        """Read the bytes."""
        check_base64("ConfigMap", (new.get("binaryData") or {}).values())

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """Do the same."""
        del old
        self.prepare_create(new)

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check keys and size; nothing of an immutable one changes."""
        faults = [*key_faults(new, "data"), *key_faults(new, "binaryData")]
        for key in (new.get("data") or {}).keys() & (new.get("binaryData") or {}).keys():
            detail = "duplicate of key present in binaryData"
            faults.append(status.invalid(f"data[{key}]", key, detail))
        if size(new) > LIMIT:
            # As the real server words a fault of the object as a whole.
            faults.append(status.too_long("[]", LIMIT))
        if old is not None and old.get("immutable"):
            if not new.get("immutable"):
                faults.append(status.forbidden_field("immutable", _FIXED))
            faults += [
                status.forbidden_field(field, _FIXED)
                for field in ("data", "binaryData")
                if new.get(field) != old.get(field)
            ]
        return faults


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


class SecretStrategy(Strategy):
    """stringData is written, data is read."""

    def default(self, new: Obj) -> None:
        """Fold stringData into data; raise 400 for data that is not base64."""
        data = new.get("data", {})
        check_base64("Secret", data.values())
        for key, text in new.pop("stringData", {}).items():
            data[key] = base64.b64encode(text.encode()).decode()
        if data:
            new["data"] = data
        new.setdefault("type", "Opaque")

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check keys and size. The type never changes, and nothing of an immutable secret."""
        faults = [*key_faults(new, "data")]
        if binary_size(new, "data") > LIMIT:
            faults.append(status.too_long("data", LIMIT))
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
    """An event lies in the namespace of its object; that of a node in `default`."""

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check where it lies."""
        del old
        about = new.get("involvedObject", {}).get("namespace", "")
        namespace = new["metadata"]["namespace"]
        if about == namespace or (not about and namespace in ("default", "kube-system")):
            return ()
        detail = "does not match event.namespace"
        return (status.invalid("involvedObject.namespace", about, detail),)


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

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check the modes."""
        spec = new["spec"]
        where = "spec.volumeLifecycleModes"
        faults = [
            status.unsupported(where, mode, _LIFECYCLE_MODES)
            for mode in spec["volumeLifecycleModes"]
            if mode not in _LIFECYCLE_MODES
        ]
        for field in ("attachRequired", "volumeLifecycleModes"):
            if old is not None and spec[field] != old["spec"][field]:
                detail = "field is immutable"
                faults.append(status.invalid(f"spec.{field}", spec[field], detail))
        return faults
