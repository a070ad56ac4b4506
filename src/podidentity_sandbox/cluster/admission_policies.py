"""Judges writes, and requests for tokens, by ValidatingAdmissionPolicies, in CEL.

Those of clients: what the controllers do, which are part of the server here, is not judged.

Words and codes:
https://github.com/kubernetes/kubernetes/blob/v1.32.3/staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/dispatcher.go
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cel_expr_python import cel

from podidentity_sandbox.cluster import Json, Obj, status
from podidentity_sandbox.cluster.authentication import User
from podidentity_sandbox.cluster.kinds.policies import GROUP, compiled_expression
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.selectors import matches_labels
from podidentity_sandbox.cluster.status import Cause, StatusError
from podidentity_sandbox.cluster.storage import Storage
from podidentity_sandbox.cluster.tokens import DEFAULT_SECONDS

POLICIES = f"validatingadmissionpolicies.{GROUP}"
BINDINGS = f"validatingadmissionpolicybindings.{GROUP}"
_LONGEST_MESSAGE = 5 * 1024
"""Bytes of a message that an expression makes."""
_CODES = {"Forbidden": 403, "Invalid": 422, "Unauthorized": 401, "RequestEntityTooLarge": 413}


class AdmissionPolicies:
    """Judges by the policies that are bound at the moment."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check_token(self, user: User, info: RequestInfo, body: Obj) -> None:
        """Raise the refusal of the first policy that denies a request for a token."""
        self._check("CREATE", user, info, _request(body), None)

    def check(self, user: User, info: RequestInfo, new: Obj | None, old: Obj | None) -> None:
        """Raise the refusal of the first policy that denies a write.

        Nothing is `old` where an object is made, and `new` where it is deleted.
        """
        operation = "DELETE" if new is None else "CREATE" if old is None else "UPDATE"
        self._check(operation, user, info, new, old)

    def _check(
        self, operation: str, user: User, info: RequestInfo, new: Obj | None, old: Obj | None
    ) -> None:
        facts = {"object": new, "oldObject": old, "request": _asked(operation, user, info)}
        labels = self._labels(info, new or old or {})
        for binding in self._storage.all(BINDINGS):
            policy = self._storage.get(POLICIES, "", binding.object["spec"]["policyName"])
            if policy is None or not _is_about(policy.object["spec"], operation, info, labels):
                continue
            for message, reason in denials(policy.object["spec"], facts):
                who = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
                said = f"{who} denied request: {message}"
                # kubectl shows the causes alone of what is invalid.
                causes = [Cause("", "", said)]
                error = status.forbidden(info.resource, info.group, info.name, said, causes)
                raise StatusError(
                    _CODES.get(reason, 422), reason, error.message, details=error.details
                )

    def _labels(self, info: RequestInfo, about: Obj) -> Mapping[str, str] | None:
        """Return the labels that a namespaceSelector sees; None for what is in no namespace."""
        if info.resource == "namespaces":
            return about["metadata"].get("labels") or {}
        if not info.namespace:
            return None
        found = self._storage.get("namespaces", "", info.namespace)
        return (found.metadata.get("labels") if found else None) or {}


def _is_about(
    spec: Obj, operation: str, info: RequestInfo, labels: Mapping[str, str] | None
) -> bool:
    whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    # '*' is each resource, and no subresource.
    wanted = {whole} if info.subresource else {whole, "*"}
    namespaced = info.namespace and info.resource != "namespaces"
    scopes = {"*", "Namespaced" if namespaced else "Cluster"}
    constraints = spec["matchConstraints"]
    if labels is not None and not matches_labels(
        constraints.get("namespaceSelector") or {}, labels
    ):
        return False
    return any(
        operation in rule["operations"]
        and {info.group, "*"} & set(rule["apiGroups"])
        and wanted & set(rule["resources"])
        and rule["scope"] in scopes
        for rule in constraints["resourceRules"]
    )


def denials(spec: Obj, facts: Obj) -> Iterator[tuple[str, str]]:
    """Yield message and reason of each expression of a policy that does not hold.

    The facts are what expressions see: object, oldObject and request.
    """
    strict = spec["failurePolicy"] == "Fail"
    for condition in spec.get("matchConditions") or []:
        holds = _value(condition["expression"], facts)
        if isinstance(holds, str) and strict:
            yield f"match condition {condition['name']} resulted in error: {holds}", "Invalid"
        if holds is not True:
            return
    facts = facts | {"variables": _variables(spec.get("variables") or [], facts)}
    for each in spec["validations"]:
        expression, holds = each["expression"], _value(each["expression"], facts)
        if isinstance(holds, str):
            if strict:
                yield f"expression '{expression}' resulted in error: {holds}", "Invalid"
        elif not holds:
            yield _message(each, facts), each.get("reason") or "Invalid"


def _variables(named: Sequence[Obj], facts: Obj) -> Obj:
    """Return their values; an expression that uses one without a value cannot be evaluated."""
    values: Obj = {}
    for each in named:
        found = compiled_expression(each["expression"]).eval(data=facts | {"variables": values})
        if found.type() != cel.Type.ERROR:
            values[each["name"]] = found.plain_value()
    return values


def _message(validation: Obj, facts: Obj) -> str:
    """Return what is said: the expression's message, if it is one line of a sensible length."""
    if written := validation.get("messageExpression"):
        found = compiled_expression(written).eval(data=facts)
        text = str(found.value()).strip() if found.type() == cel.Type.STRING else ""
        if text and "\n" not in text and len(text.encode()) <= _LONGEST_MESSAGE:
            return text
    return validation.get("message") or f"failed expression: {validation['expression']}"


def _value(expression: str, facts: Obj) -> bool | str:
    """Return whether an expression holds; the error as text, also for what is no boolean."""
    found = compiled_expression(expression).eval(data=facts)
    if found.type() == cel.Type.BOOL:
        return bool(found.value())
    return str(found.value())


def _request(body: Obj) -> Obj:
    """Return the TokenRequest as a policy sees it, with its default: what was not said is null."""
    spec = body.get("spec") or {}
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {},
        "spec": {
            "audiences": spec.get("audiences"),
            "expirationSeconds": spec.get("expirationSeconds") or DEFAULT_SECONDS,
            "boundObjectRef": _full(spec.get("boundObjectRef")),
        },
    }


def _full(reference: Json) -> Json:
    return reference if isinstance(reference, dict) else None


def _asked(operation: str, user: User, info: RequestInfo) -> Obj:
    return {
        "operation": operation,
        "namespace": info.namespace,
        "name": info.name,
        "subResource": info.subresource,
        "userInfo": {
            "username": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
        },
    }
