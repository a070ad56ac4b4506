"""Rules of DaemonSets, Deployments and ReplicaSets, and of the budgets of their pods.

Defaults and faults are those of pkg/apis/apps/v1/defaults.go, pkg/apis/apps/validation and
pkg/apis/policy/validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.kinds import pods
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.selectors import matches_labels
from podidentity_sandbox.cluster.status import Cause

_PERCENT = re.compile("[0-9]{1,9}%", re.ASCII)
_LIMITS = ("maxUnavailable", "maxSurge")


def not_negative(where: str, value: int) -> Iterator[Cause]:
    """Yield the fault of a number below 0."""
    if value < 0:
        yield status.invalid(where, value, "must be greater than or equal to 0")


def amount_faults(where: str, value: int | str) -> Iterator[Cause]:
    """Yield the fault of what is neither a number of pods nor a share of them."""
    if isinstance(value, int):
        yield from not_negative(where, value)
    elif not _PERCENT.fullmatch(value):
        detail = (
            "a valid percent string must be a numeric string followed by an ending '%' "
            "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
        )
        yield status.invalid(where, value, detail)


def _is_nothing(limit: int | str) -> bool:
    return not int(str(limit).removesuffix("%"))


class _SetStrategy(Strategy):
    """A set's selector never changes, and its template must match it."""

    noun = "replica set"

    def default(self, new: Obj) -> None:
        """Fill in the defaults of the template."""
        template = new.setdefault("spec", {}).setdefault("template", {})
        pods.default_spec(template.setdefault("spec", {}))

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check selector and template, and that nobody waits in vain."""
        spec = new["spec"]
        selector, template = spec.get("selector"), spec["template"]
        labels = template.get("metadata", {}).get("labels", {})
        if selector is None:
            yield status.required("spec.selector")
        elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
            detail = f"empty selector is invalid for {self.noun}"
            yield status.invalid("spec.selector", selector, detail)
        elif not matches_labels(selector, labels):
            where, detail = "spec.template.metadata.labels", "`selector` does not match template"
            yield status.invalid(where, labels, f"{detail} `labels`")
        if old is not None and selector != old["spec"]["selector"]:
            yield status.invalid("spec.selector", selector, "field is immutable")
        yield from pods.spec_faults(template["spec"], "spec.template.spec")
        if (policy := template["spec"]["restartPolicy"]) != "Always":
            yield status.unsupported("spec.template.spec.restartPolicy", policy, ["Always"])
        if spec.get("minReadySeconds"):
            detail = "here a pod is available as soon as it is ready"
            yield status.forbidden_field("spec.minReadySeconds", detail)


class DaemonSetStrategy(_SetStrategy):
    """How one template's pods follow another's: of both limits exactly one is not zero."""

    noun = "daemonset"

    def default(self, new: Obj) -> None:
        """Fill in the defaults."""
        super().default(new)
        new["spec"].setdefault("revisionHistoryLimit", 10)
        update = new["spec"].setdefault("updateStrategy", {})
        if update.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = update.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check the update strategy, too: ValidateRollingUpdateDaemonSet."""
        yield from super().validate(new, old)
        yield from _update_faults(new["spec"]["updateStrategy"], "spec.updateStrategy")


def _update_faults(update: Obj, where: str) -> Iterator[Cause]:
    if update["type"] == "OnDelete":
        return
    if update["type"] != "RollingUpdate":
        kinds = ("RollingUpdate", "OnDelete")
        yield status.unsupported(f"{where}.type", update["type"], kinds)
        return
    rolling, where = update["rollingUpdate"], f"{where}.rollingUpdate"
    faults = [f for field in _LIMITS for f in amount_faults(f"{where}.{field}", rolling[field])]
    yield from faults
    for field in _LIMITS if not faults else ():
        limit = rolling[field]
        if isinstance(limit, str) and int(limit.removesuffix("%")) > 100:
            yield status.invalid(f"{where}.{field}", limit, "must not be greater than 100%")
    zeros = [_is_nothing(rolling[field]) for field in _LIMITS if not faults]
    if zeros == [False, False]:
        detail = "may not be set when maxUnavailable is non-zero"
        yield status.invalid(f"{where}.maxSurge", rolling["maxSurge"], detail)
    elif zeros == [True, True]:
        detail = "cannot be 0 when maxSurge is 0"
        yield status.required(f"{where}.maxUnavailable", detail)


class ReplicaSetStrategy(_SetStrategy):
    """A number of pods."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults."""
        super().default(new)
        new["spec"].setdefault("replicas", 1)
        new["spec"]["template"].setdefault("metadata", {})

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check the number, too."""
        yield from super().validate(new, old)
        yield from not_negative("spec.replicas", new["spec"]["replicas"])


class DeploymentStrategy(ReplicaSetStrategy):
    """The same, and how one template's pods follow another's."""

    noun = "deployment"

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

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check the strategy, too."""
        yield from super().validate(new, old)
        yield from _strategy_faults(new["spec"])


def _strategy_faults(spec: Obj) -> Iterator[Cause]:
    strategy, where = spec["strategy"], "spec.strategy"
    if strategy["type"] == "Recreate":
        yield status.forbidden_field(f"{where}.type", "the sandbox knows RollingUpdate alone")
    elif strategy["type"] != "RollingUpdate":
        kinds = ("Recreate", "RollingUpdate")
        yield status.unsupported(f"{where}.type", strategy["type"], kinds)
    else:
        rolling, where = strategy["rollingUpdate"], f"{where}.rollingUpdate"
        faults = [f for field in _LIMITS for f in amount_faults(f"{where}.{field}", rolling[field])]
        yield from faults
        if not faults and all(_is_nothing(rolling[field]) for field in _LIMITS):
            detail = "may not be 0 when `maxSurge` is 0"
            yield status.invalid(f"{where}.maxUnavailable", rolling["maxUnavailable"], detail)
    if spec.get("paused"):
        yield status.forbidden_field("spec.paused", "the sandbox goes on with every rollout")
    yield from not_negative("spec.revisionHistoryLimit", spec["revisionHistoryLimit"])
    yield from not_negative("spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"])


# ---- Pod disruption budgets: kept and checked; nothing asks them.
#
# https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/

_BOUNDS = ("minAvailable", "maxUnavailable")
_POLICIES = ("AlwaysAllow", "IfHealthyBudget")


class BudgetStrategy(Strategy):
    """One bound, a number of pods or a share of them."""

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check the bounds."""
        del old
        spec = new.get("spec", {})
        if all(bound in spec for bound in _BOUNDS):
            detail = "minAvailable and maxUnavailable cannot be both set"
            yield status.invalid("spec", spec, detail)
        for bound in _BOUNDS:
            yield from amount_faults(f"spec.{bound}", spec.get(bound, 0))
        policy = spec.get("unhealthyPodEvictionPolicy", _POLICIES[0])
        if policy not in _POLICIES:
            yield status.unsupported("spec.unhealthyPodEvictionPolicy", policy, _POLICIES)
