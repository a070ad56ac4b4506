"""DaemonSets: the rules of the object; `controllers.daemonsets` makes its pods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.kinds import pods
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.selectors import matches_labels
from podidentity_sandbox.cluster.shapes import INT_OR_STRING
from podidentity_sandbox.cluster.status import Cause

SELECTOR = {"matchLabels": {"*": str}, "matchExpressions": pods.RULES}
TEMPLATE = {
    "metadata": {"labels": {"*": str}, "annotations": {"*": str}},
    "spec": pods.SPEC,
}
SHAPE: dict[str, Any] = {
    "spec": {
        "selector": SELECTOR,
        "template": TEMPLATE,
        "updateStrategy": {
            "type": str,
            "rollingUpdate": {"maxSurge": INT_OR_STRING, "maxUnavailable": INT_OR_STRING},
        },
        "minReadySeconds": int,
    },
}


PERCENT = (
    "a valid percent string must be a numeric string followed by an ending '%' "
    "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
)


class DaemonSetStrategy(Strategy):
    """Its selector never changes, and its template must match it."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults of the set and of its template."""
        spec = new.setdefault("spec", {})
        spec.setdefault("revisionHistoryLimit", 10)
        update = spec.setdefault("updateStrategy", {})
        if update.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = update.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        pods.default_spec(spec.setdefault("template", {}).setdefault("spec", {}))

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check selector and template."""
        spec = new["spec"]
        faults = _selector_faults(spec.get("selector"), spec["template"])
        if old is not None and spec.get("selector") != old["spec"]["selector"]:
            selector = spec.get("selector")
            faults.append(status.invalid("spec.selector", selector, "field is immutable"))
        faults += pods.spec_faults(spec["template"]["spec"], "spec.template.spec")
        policy = spec["template"]["spec"]["restartPolicy"]
        if policy != "Always":
            where = "spec.template.spec.restartPolicy"
            faults.append(status.unsupported(where, policy, ["Always"]))
        return [*faults, *_update_faults(spec["updateStrategy"])]


def _update_faults(update: Obj) -> Iterator[Cause]:
    """Yield the faults of an update strategy: of both limits exactly one is not zero.

    ValidateRollingUpdateDaemonSet of pkg/apis/apps/validation/validation.go.
    """
    kinds, where = ("RollingUpdate", "OnDelete"), "spec.updateStrategy"
    if update["type"] not in kinds:
        yield status.unsupported(f"{where}.type", update["type"], kinds)
    if update["type"] != "RollingUpdate":
        return
    rolling, where = update["rollingUpdate"], f"{where}.rollingUpdate"
    for field in ("maxUnavailable", "maxSurge"):
        yield from _limit_faults(rolling[field], f"{where}.{field}")
    unavailable, surge = (_number(rolling[field]) for field in ("maxUnavailable", "maxSurge"))
    if unavailable and surge:
        detail = "may not be set when maxUnavailable is non-zero"
        yield status.invalid(f"{where}.maxSurge", rolling["maxSurge"], detail)
    elif not unavailable and not surge:
        detail = "cannot be 0 when maxSurge is 0"
        yield status.required(f"{where}.maxUnavailable", detail)


def _limit_faults(limit: int | str, where: str) -> Iterator[Cause]:
    if isinstance(limit, int):
        if limit < 0:
            yield status.invalid(where, limit, "must be greater than or equal to 0")
    elif not re.fullmatch("[0-9]{1,9}%", limit, re.ASCII):
        yield status.invalid(where, limit, PERCENT)
    elif _number(limit) > 100:
        yield status.invalid(where, limit, "must not be greater than 100%")


def _number(limit: int | str) -> int:
    digits = str(limit).removesuffix("%")
    return int(digits) if digits.isdecimal() else 0


def _selector_faults(selector: Obj | None, template: Obj) -> list[Cause]:
    if selector is None:
        return [status.required("spec.selector")]
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        detail = "empty selector is invalid for daemonset"
        return [status.invalid("spec.selector", selector, detail)]
    labels = template.get("metadata", {}).get("labels", {})
    if not matches_labels(selector, labels):
        detail = "`selector` does not match template `labels`"
        return [status.invalid("spec.template.metadata.labels", labels, detail)]
    return []
