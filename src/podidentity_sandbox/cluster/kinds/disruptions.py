"""Pod disruption budgets: kept and checked; nothing asks them.

https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/
Faults are those of ValidatePodDisruptionBudgetSpec in pkg/apis/policy/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.kinds.workloads import amount_faults
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

GROUP = "policy"
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
