"""Rules of DaemonSets, Deployments and ReplicaSets; their controllers make the pods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.kinds import pods
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.selectors import matches_labels
from podidentity_sandbox.cluster.status import Cause

# ---- DaemonSets

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
        faults = [*_selector_faults(new, old, "daemonset")]
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


def _selector_faults(new: Obj, old: Obj | None, noun: str) -> Iterator[Cause]:
    spec = new["spec"]
    selector = spec.get("selector")
    labels = spec["template"].get("metadata", {}).get("labels", {})
    if selector is None:
        yield status.required("spec.selector")
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        detail = f"empty selector is invalid for {noun}"
        yield status.invalid("spec.selector", selector, detail)
    elif not matches_labels(selector, labels):
        detail = "`selector` does not match template `labels`"
        yield status.invalid("spec.template.metadata.labels", labels, detail)
    if old is not None and selector != old["spec"]["selector"]:
        yield status.invalid("spec.selector", selector, "field is immutable")


# ---- Deployments and ReplicaSets: the rules of the objects; their controllers make the pods.
#
# Defaults and faults are those of pkg/apis/apps/v1/defaults.go and pkg/apis/apps/validation.

_WHERE = "spec.strategy"
_PERCENT = re.compile("[0-9]{1,9}%", re.ASCII)


class ReplicaSetStrategy(Strategy):
    """Its selector never changes, and its template must match it."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults of the set and of its template."""
        spec = new.setdefault("spec", {})
        spec.setdefault("replicas", 1)
        template = spec.setdefault("template", {})
        template.setdefault("metadata", {})
        pods.default_spec(template.setdefault("spec", {}))

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check selector, template and number."""
        spec = new["spec"]
        noun = "deployment" if "strategy" in spec else "replica set"
        faults = [*_selector_faults(new, old, noun)]
        for field in ("replicas", "minReadySeconds"):
            faults += not_negative(f"spec.{field}", spec.get(field, 0))
        faults += pods.spec_faults(spec["template"]["spec"], "spec.template.spec")
        policy = spec["template"]["spec"]["restartPolicy"]
        if policy in ("OnFailure", "Never"):
            where = "spec.template.spec.restartPolicy"
            faults.append(status.unsupported(where, policy, ["Always"]))
        return faults


class DeploymentStrategy(ReplicaSetStrategy):
    """The same, and how one template's pods follow another's."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults."""
        super().default(new)
        spec = new["spec"]
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
        strategy = spec.setdefault("strategy", {})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check the strategy, too."""
        return [*super().validate(new, old), *_strategy_faults(new["spec"])]


def _strategy_faults(spec: Obj) -> Iterator[Cause]:
    strategy = spec["strategy"]
    kind = strategy["type"]
    if kind == "RollingUpdate":
        yield from _rolling_faults(strategy["rollingUpdate"])
    elif kind == "Recreate":
        yield status.forbidden_field(f"{_WHERE}.type", "the sandbox knows RollingUpdate alone")
    else:
        yield status.unsupported(f"{_WHERE}.type", kind, ("Recreate", "RollingUpdate"))
    yield from not_negative("spec.revisionHistoryLimit", spec["revisionHistoryLimit"])
    deadline = spec["progressDeadlineSeconds"]
    yield from not_negative("spec.progressDeadlineSeconds", deadline)
    if deadline <= spec.get("minReadySeconds", 0):
        detail = "must be greater than minReadySeconds"
        yield status.invalid("spec.progressDeadlineSeconds", deadline, detail)


def _rolling_faults(rolling: Obj) -> Iterator[Cause]:
    where = f"{_WHERE}.rollingUpdate"
    for field in ("maxUnavailable", "maxSurge"):
        limit = rolling[field]
        if isinstance(limit, int):
            yield from not_negative(f"{where}.{field}", limit)
        elif not _PERCENT.fullmatch(limit):
            yield status.invalid(f"{where}.{field}", limit, PERCENT)
    if {str(rolling[field]).removesuffix("%") for field in ("maxUnavailable", "maxSurge")} == {"0"}:
        detail = "may not be 0 when `maxSurge` is 0"
        yield status.invalid(f"{where}.maxUnavailable", rolling["maxUnavailable"], detail)


def not_negative(where: str, value: int) -> Iterator[Cause]:
    """Yield the fault of a number below 0."""
    if value < 0:
        yield status.invalid(where, value, "must be greater than or equal to 0")
