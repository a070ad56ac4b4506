"""ValidatingAdmissionPolicy and its binding: the rules of the objects.

`admission_policies` evaluates them. What it does not evaluate is refused here, so that nothing that
an operator writes is passed over in silence.

https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

GROUP = "admissionregistration.k8s.io"
_RULE = frozenset({"apiGroups", "apiVersions", "operations", "resources", "scope"})
_CONSTRAINTS = frozenset({"matchPolicy", "resourceRules", "namespaceSelector"})
_CONDITION = frozenset({"name", "expression"})
_VALIDATION = frozenset({"expression", "message", "messageExpression", "reason"})
_FIELDS = {"matchConditions": _CONDITION, "variables": _CONDITION, "validations": _VALIDATION}
"""Those of a policy that have expressions."""
_POLICY = frozenset({"failurePolicy", "matchConstraints", *_FIELDS})
_BINDING = frozenset({"policyName", "validationActions"})
_OPERATIONS = ("CREATE", "UPDATE", "DELETE")
_TOKENS = "serviceaccounts/token"
"""The one subresource that is judged."""


class PolicyStrategy(Strategy):
    """A policy can be compiled, and is about what is evaluated."""

    def default(self, new: Obj) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("failurePolicy", "Fail")
        constraints = spec.setdefault("matchConstraints", {})
        constraints.setdefault("matchPolicy", "Equivalent")
        for rule in constraints.get("resourceRules") or []:
            rule.setdefault("scope", "*")

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        del old
        spec = new["spec"]
        yield from _unknown("spec", spec, _POLICY)
        yield from _unknown("spec.matchConstraints", spec["matchConstraints"], _CONSTRAINTS)
        rules = spec["matchConstraints"].get("resourceRules") or []
        if not rules:
            yield status.required("spec.matchConstraints.resourceRules")
        for number, rule in enumerate(rules):
            where = f"spec.matchConstraints.resourceRules[{number}]"
            yield from _unknown(where, rule, _RULE)
            yield from _not_evaluated(where, rule)
        if not spec.get("validations"):
            yield status.required("spec.validations", "validations or auditAnnotations")
        for field, known in _FIELDS.items():
            for number, each in enumerate(spec.get(field) or []):
                yield from _unknown(f"spec.{field}[{number}]", each, known)
                yield from _uncompiled(f"spec.{field}[{number}]", each)


class BindingStrategy(Strategy):
    """A binding names a policy, and what a refusal does."""

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        del old
        spec = new.get("spec") or {}
        yield from _unknown("spec", spec, _BINDING)
        if not spec.get("policyName"):
            yield status.required("spec.policyName")
        if spec.get("validationActions") != ["Deny"]:
            detail = "the sandbox knows the action Deny alone"
            yield status.invalid("spec.validationActions", "", detail)


def _not_evaluated(where: str, rule: Obj) -> Iterator[Cause]:
    """Yield what of a rule is about requests that no policy is asked about here."""
    for operation in rule.get("operations") or [""]:
        if operation not in _OPERATIONS:
            detail = f"the sandbox evaluates {', '.join(_OPERATIONS)} alone"
            yield status.invalid(f"{where}.operations", operation, detail)
    for resource in rule.get("resources") or [""]:
        if not resource or ("/" in resource and resource != _TOKENS):
            detail = f"the sandbox evaluates no subresource but {_TOKENS}"
            yield status.invalid(f"{where}.resources", resource, detail)


def _unknown(where: str, found: Obj, known: frozenset[str]) -> Iterator[Cause]:
    """Yield the fields that are not evaluated."""
    for field in found.keys() - known:
        yield status.invalid(f"{where}.{field}", "", "the sandbox does not evaluate it")


def _uncompiled(where: str, found: Obj) -> Iterator[Cause]:
    for field in ("expression", "messageExpression"):
        text = found.get(field, "")
        try:
            compiled_expression(text) if text or field == "expression" else None
        except RuntimeError as error:
            yield status.invalid(f"{where}.{field}", text, f"compilation failed: {error}")


@lru_cache(maxsize=256)
def compiled_expression(expression: str) -> cel.Expression:
    """Return the program; raises RuntimeError for what does not compile.

    Of the server's libraries it knows that of strings:
    https://kubernetes.io/docs/reference/using-api/cel/
    """
    return _environment().compile(expression)


@cache
def _environment() -> cel.Env:
    """Return what all expressions know. To make it costs as much as to compile fifteen of them."""
    names = ("object", "oldObject", "request", "variables")
    variables = dict.fromkeys(names, cel.Type.DYN)
    return cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings()])
