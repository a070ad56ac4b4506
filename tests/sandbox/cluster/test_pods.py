"""Which pods are valid, and what of them may change.

https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.sandbox.cluster.conftest import pod

PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [{"image": "x"}]}, "spec.containers[0].name: Required value"),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image: Required value"),
        (
            {"containers": [{"name": "c", "image": "x"}, {"name": "c", "image": "x"}]},
            'spec.containers[1].name: Duplicate value: "c"',
        ),
        (
            {
                "containers": [
                    {
                        "name": "c",
                        "image": "x",
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    }
                ]
            },
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Sometimes"},
            'spec.restartPolicy: Unsupported value: "Sometimes": '
            'supported values: "Always", "OnFailure", "Never"',
        ),
    ],
)
async def test_a_pod_that_cannot_run_is_invalid(
    api: httpx2.AsyncClient, spec: dict[str, Any], says: str
) -> None:
    answer = await api.post(PODS, json={"metadata": {"name": "a"}, "spec": spec})
    assert answer.status_code == 422
    assert answer.json()["message"] == f'Pod "a" is invalid: {says}'


async def test_a_variable_that_is_no_text_does_not_decode(api: httpx2.AsyncClient) -> None:
    body = pod(containers=[{"name": "c", "image": "x", "env": [{"name": "PORT", "value": 80}]}])
    answer = await api.post(PODS, json=body)
    assert answer.json()["message"] == (
        'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into '
        "Go struct field EnvVar.spec.containers.env.value of type string"
    )


async def test_a_pod_s_spec_is_fixed_once_it_is_made(api: httpx2.AsyncClient) -> None:
    made = (await api.post(PODS, json=pod(nodeName="n"))).json()
    made["spec"]["containers"][0]["image"] = "other"
    changed = await api.put(f"{PODS}/a", json=made)
    assert changed.status_code == 200
    again = changed.json()
    again["spec"]["nodeName"] = "other"
    refused = await api.put(f"{PODS}/a", json=again)
    assert refused.status_code == 422
    assert "pod updates may not change fields other than" in refused.json()["message"]


async def test_a_pod_needs_its_namespace_and_its_account(api: httpx2.AsyncClient) -> None:
    lost = await api.post("/api/v1/namespaces/nowhere/pods", json=pod())
    assert (lost.status_code, lost.json()["message"]) == (404, 'namespaces "nowhere" not found')
    alone = await api.post(PODS, json=pod(serviceAccountName="nobody"))
    assert (alone.status_code, alone.json()["message"]) == (
        403,
        'pods "a" is forbidden: error looking up service account default/nobody: '
        'serviceaccount "nobody" not found',
    )


async def test_a_pod_has_no_generation_as_in_its_version(api: httpx2.AsyncClient) -> None:
    """It came with 1.33.

    https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/5067-pod-generation
    """
    made = (await api.post(PODS, json=pod())).json()
    assert "generation" not in made["metadata"]
