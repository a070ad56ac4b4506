"""ValidatingAdmissionPolicies of the sandbox: what it evaluates, and that it refuses all else.

https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.sandbox.cluster.conftest import MERGE, TOKEN, Client, check_refusal

ROOT = "/apis/admissionregistration.k8s.io/v1"
TOKENS = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE"],
    "resources": ["serviceaccounts/token"],
}
NAME = "kubernetes.io/metadata.name"


def policy(*expressions: str, **spec: Any) -> dict[str, Any]:
    wanted = {
        "matchConstraints": {"resourceRules": [TOKENS]},
        "validations": [{"expression": each} for each in expressions],
        **spec,
    }
    return {"metadata": {"name": "p"}, "spec": wanted}


def about(**changes: Any) -> dict[str, Any]:
    """A policy whose rule is that for tokens with some changes."""
    return policy("true", matchConstraints={"resourceRules": [{**TOKENS, **changes}]})


async def bound(api: Client, body: dict[str, Any]) -> None:
    spec = {"policyName": "p", "validationActions": ["Deny"]}
    binding = {"metadata": {"name": "b"}, "spec": spec}
    for kind, wanted in (("policies", body), ("policybindings", binding)):
        made = await api.post(f"{ROOT}/validatingadmission{kind}", json=wanted)
        assert made.status_code == 201, made.text


async def asked(api: Client, **spec: Any) -> httpx2.Response:
    return await api.post(TOKEN, json={"spec": spec})


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("object.spec.audiences == ['a']", 201),
        ("object.spec.boundObjectRef == null", 201),
        ("request.namespace == 'default' && request.name == 'default'", 201),
        ("request.userInfo.username == 'admin'", 201),
        ("'system:masters' in request.userInfo.groups", 201),
        ("request.subResource == 'token' && request.operation == 'CREATE'", 201),
        ("object.spec.audiences == ['b']", 422),
        # What cannot be evaluated denies, where the policy does not say otherwise.
        ("object.spec.nothing == 1", 422),
        ("object.spec.boundObjectRef.kind == 'Pod'", 422),
        ("'true'", 422),
    ],
)
async def test_an_expression_holds_or_denies(api: Client, expression: str, code: int) -> None:
    await bound(api, policy(expression))
    answer = await asked(api, audiences=["a"])
    assert answer.status_code == code
    if code != 201:
        refused = "forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
        assert f'serviceaccounts "default" is {refused}' in answer.json()["message"]


ALL = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
MAPS = "/api/v1/namespaces/{}/configmaps"


async def written(api: Client, namespace: str) -> list[int]:
    """Make, change and delete an object; return what became of each."""
    path = MAPS.format(namespace)
    made = await api.post(path, json={"metadata": {"name": "m"}})
    changed = await api.patch(f"{path}/m", json={"data": {"a": "b"}}, headers=MERGE)
    gone = await api.delete(f"{path}/m")
    return [made.status_code, changed.status_code, gone.status_code]


@pytest.mark.parametrize(
    ("operations", "codes"),
    [
        (["CREATE"], [422, 404, 404]),
        (["UPDATE"], [201, 422, 200]),
        (["DELETE"], [201, 200, 422]),
    ],
)
async def test_a_policy_judges_the_operations_that_it_names_of_any_resource(
    api: Client, operations: list[str], codes: list[int]
) -> None:
    rule = {**ALL, "operations": operations}
    await bound(api, policy("request.name != 'm'", matchConstraints={"resourceRules": [rule]}))
    assert await written(api, "default") == codes
    assert (await asked(api)).status_code == 201, "* is no subresource"


@pytest.mark.parametrize(
    ("selector", "scope", "closed"),
    [
        ({"matchExpressions": [{"key": NAME, "operator": "In", "values": ["a", "b"]}]}, "*", "a"),
        ({"matchExpressions": [{"key": NAME, "operator": "NotIn", "values": ["b"]}]}, "*", "a"),
        ({"matchLabels": {"closed": "yes"}}, "Namespaced", "a"),
        ({"matchLabels": {"closed": "no"}}, "Namespaced", ""),
        ({}, "Cluster", ""),
    ],
)
async def test_a_policy_judges_the_namespaces_that_it_selects(
    api: Client, selector: dict[str, Any], scope: str, closed: str
) -> None:
    metadata = {"name": "a", "labels": {"closed": "yes"}}
    assert (await api.post("/api/v1/namespaces", json={"metadata": metadata})).is_success
    rule = {**ALL, "operations": ["CREATE"], "resources": ["configmaps"], "scope": scope}
    rules = {"resourceRules": [rule], "namespaceSelector": selector}
    await bound(api, policy("false", matchConstraints=rules))
    made = await api.post(MAPS.format("a"), json={"metadata": {"name": "m"}})
    assert (made.status_code == 422) is (closed == "a")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (policy("object.spec. =="), "compilation failed"),
        (policy("authorizer.path('/').check('get').allowed()"), "compilation failed"),
        (policy(), "validations or auditAnnotations"),
        (policy("true", matchConstraints={}), "resourceRules"),
        (about(operations=["CONNECT"]), "evaluates CREATE, UPDATE, DELETE alone"),
        (about(resources=["pods/status"]), "no subresource but serviceaccounts/token"),
        (about(resources=["*/*"]), "no subresource but serviceaccounts/token"),
        (policy("true", paramKind={"kind": "Pod", "apiVersion": "v1"}), "does not evaluate it"),
        (policy("true", variables=[{"name": "x"}]), "compilation failed"),
        (policy("true", auditAnnotations=[{"key": "x"}]), "does not evaluate it"),
    ],
)
async def test_what_is_not_evaluated_is_not_taken(
    api: Client, body: dict[str, Any], says: str
) -> None:
    check_refusal(await api.post(f"{ROOT}/validatingadmissionpolicies", json=body), 422, says)
