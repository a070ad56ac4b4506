"""The subresource scale: the number of a set's pods.

https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/scale-v1/
"""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from podidentity_sandbox.cluster.labelselectors import text
from tests.sandbox.cluster.test_deployments import deployment

PATH = "/apis/apps/v1/namespaces/default/deployments"
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
async def web(api: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """A client of a cluster with the Deployment `web` of three pods."""
    made = await api.post(PATH, json=deployment())
    assert made.status_code == 201, made.text
    return api


async def test_a_scale_shows_the_number_and_the_selector(web: httpx2.AsyncClient) -> None:
    shown = (await web.get(f"{PATH}/web/scale")).json()
    assert (shown["kind"], shown["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert shown["spec"] == {"replicas": 3}
    assert shown["status"]["selector"] == "app=web"


async def test_a_patch_and_an_update_change_the_number_alone(web: httpx2.AsyncClient) -> None:
    body = {"spec": {"replicas": 5}}
    patched = await web.patch(f"{PATH}/web/scale", json=body, headers=MERGE)
    assert patched.json()["spec"] == {"replicas": 5}
    # Without the version: the controller may have written meanwhile.
    scale = {"metadata": {"name": "web"}, "spec": {"replicas": 2}}
    assert (await web.put(f"{PATH}/web/scale", json=scale)).json()["spec"] == {"replicas": 2}
    found = (await web.get(f"{PATH}/web")).json()["spec"]
    assert found["replicas"] == 2
    assert found["template"]["spec"]["containers"][0]["image"] == "web:1"


async def test_an_older_state_is_not_scaled(web: httpx2.AsyncClient) -> None:
    scale = (await web.get(f"{PATH}/web/scale")).json()
    await web.put(f"{PATH}/web/scale", json={**scale, "spec": {"replicas": 4}})
    late = await web.put(f"{PATH}/web/scale", json={**scale, "spec": {"replicas": 1}})
    assert late.status_code == 409


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            {"spec": {"replicas": -1}},
            422,
            'Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: must be greater '
            "than or equal to 0",
        ),
        ({"spec": {"replicas": "many"}}, 400, "cannot be handled as a Scale"),
    ],
)
async def test_what_is_no_number_is_refused(
    web: httpx2.AsyncClient, body: dict[str, Any], code: int, message: str
) -> None:
    refused = await web.patch(f"{PATH}/web/scale", json=body, headers=MERGE)
    assert refused.status_code == code
    assert message in refused.json()["message"]


def test_a_selector_is_written_as_a_query_has_it() -> None:
    rules = [
        {"key": "tier", "operator": "In", "values": ["b", "a"]},
        {"key": "old", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": rules}
    assert text(selector) == "app=web,!old,tier in (a,b)"
