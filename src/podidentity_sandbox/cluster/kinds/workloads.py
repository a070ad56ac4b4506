"""Defaults and rules of DaemonSets, Deployments and ReplicaSets.

Defaults are those of pkg/apis/apps/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.kinds import pods
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.selectors import matches_labels
from podidentity_sandbox.cluster.status import Cause

ELSEWHERE = "only a real control plane does this: `podidentity sandbox up --kubernetes FOLDER`"


class _SetStrategy(Strategy):
    """A set's selector never changes, and its template must match it."""

    update = ""
    """The field that says how one template's pods follow another's."""
    limits: tuple[int | str, int | str] = (0, 0)
    """Defaults of maxUnavailable and maxSurge."""
    known: tuple[str, ...] = ("RollingUpdate",)
    """Ways that are known here."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults of the template, and of its updates."""
        spec = new.setdefault("spec", {})
        pods.default_spec(spec.setdefault("template", {}).setdefault("spec", {}))
        if not self.update:
            return
        spec.setdefault("revisionHistoryLimit", 10)
        update = spec.setdefault(self.update, {})
        if update.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = update.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", self.limits[0])
            rolling.setdefault("maxSurge", self.limits[1])

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check selector and template, and that nobody waits in vain."""
        spec = new["spec"]
        selector, template = spec.get("selector"), spec["template"]
        labels = template.get("metadata", {}).get("labels", {})
        if not selector:
            yield status.required("spec.selector")
        elif not matches_labels(selector, labels):
            where, detail = "spec.template.metadata.labels", "`selector` does not match template"
            yield status.invalid(where, labels, f"{detail} `labels`")
        if old is not None and selector != old["spec"]["selector"]:
            yield status.invalid("spec.selector", selector, "field is immutable")
        yield from pods.spec_faults(template["spec"], "spec.template.spec")
        if self.update and spec[self.update]["type"] not in self.known:
            yield status.forbidden_field(f"spec.{self.update}.type", ELSEWHERE)
        for field in ("minReadySeconds", "paused"):
            if spec.get(field):
                yield status.forbidden_field(f"spec.{field}", ELSEWHERE)


class DaemonSetStrategy(_SetStrategy):
    """One pod a node."""

    update, limits, known = "updateStrategy", (1, 0), ("RollingUpdate", "OnDelete")


class ReplicaSetStrategy(_SetStrategy):
    """A number of pods."""

    def default(self, new: Obj) -> None:
        super().default(new)
        new["spec"].setdefault("replicas", 1)
        new["spec"]["template"].setdefault("metadata", {})


class DeploymentStrategy(ReplicaSetStrategy):
    """A number of pods, and how one template's pods follow another's."""

    update, limits = "strategy", ("25%", "25%")

    def default(self, new: Obj) -> None:
        super().default(new)
        new["spec"].setdefault("progressDeadlineSeconds", 600)
