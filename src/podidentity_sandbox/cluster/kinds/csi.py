"""CSIDriver: what a storage driver demands of the kubelets.

https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/csi-driver-v1/
"""

from __future__ import annotations

from collections.abc import Sequence

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

SHAPE = {
    "spec": {
        "attachRequired": bool,
        "podInfoOnMount": bool,
        "volumeLifecycleModes": [str],
        "fsGroupPolicy": str,
        "storageCapacity": bool,
        "requiresRepublish": bool,
        "seLinuxMount": bool,
        "tokenRequests": [{"audience": str, "expirationSeconds": int}],
    },
}
_MODES = ("Ephemeral", "Persistent")
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

    def prepare_create(self, new: Obj) -> None:
        """Do the same."""
        self.default(new)

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """Do the same."""
        del old
        self.default(new)

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check the modes."""
        spec = new["spec"]
        where = "spec.volumeLifecycleModes"
        faults = [
            status.unsupported(where, mode, _MODES)
            for mode in spec["volumeLifecycleModes"]
            if mode not in _MODES
        ]
        for field in ("attachRequired", "volumeLifecycleModes"):
            if old is not None and spec[field] != old["spec"][field]:
                detail = "field is immutable"
                faults.append(status.invalid(f"spec.{field}", spec[field], detail))
        return faults
