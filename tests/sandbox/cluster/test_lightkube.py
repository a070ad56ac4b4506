"""lightkube, written by others against real clusters, judges this server.

Its models allow None nearly everywhere, so the client is Any here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.core_v1 import Container, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod
from lightkube.types import PatchType

from tests.sandbox.cluster.conftest import ADMIN, Served


@pytest.fixture
async def kube(served: Served) -> AsyncIterator[Any]:
    config = KubeConfig.from_dict(served.kubeconfig(token=ADMIN))
    client = AsyncClient(config=config, trust_env=False)
    yield client
    await client.close()


def pod(name: str) -> Any:
    spec = PodSpec(containers=[Container(name="c", image="busybox")])
    return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)


async def test_objects_are_created_replaced_patched_and_deleted(kube: Any) -> None:
    made = await kube.create(
        ConfigMap(metadata=ObjectMeta(name="x", namespace="default"), data={"a": "1"})
    )
    made.data = {"a": "2"}
    changed = await kube.replace(made)
    assert changed.data == {"a": "2"}
    with pytest.raises(ApiError) as refusal:
        await kube.replace(made)
    assert refusal.value.status.reason == "Conflict"
    patched = await kube.patch(
        ConfigMap, "x", {"data": {"a": None, "b": "3"}}, patch_type=PatchType.MERGE
    )
    assert patched.data == {"b": "3"}
    await kube.delete(ConfigMap, "x")
    with pytest.raises(ApiError) as missing:
        await kube.get(ConfigMap, "x")
    assert missing.value.status.message == 'configmaps "x" not found'


async def test_configurations_are_applied_on_the_servers_side(kube: Any) -> None:
    def config(**data: str) -> Any:
        return ConfigMap(
            apiVersion="v1",
            kind="ConfigMap",
            metadata=ObjectMeta(name="x", namespace="default"),
            data=data or None,
        )

    await kube.apply(config(a="1", b="2"), field_manager="one")
    with pytest.raises(ApiError) as conflict:
        await kube.apply(config(a="3"), field_manager="two")
    assert conflict.value.status.message == (
        'Apply failed with 1 conflict: conflict with "one": .data.a'
    )
    forced = await kube.apply(config(a="3"), field_manager="two", force=True)
    assert forced.data == {"a": "3", "b": "2"}
    left = await kube.apply(config(), field_manager="one")
    assert left.data == {"a": "3"}
    assert [entry.manager for entry in left.metadata.managedFields] == ["two"]


async def test_a_watch_sees_what_happens_after_the_list(kube: Any) -> None:
    await kube.create(pod("one"))
    listed = kube.list(Pod, namespace="default")
    assert [each.metadata.name async for each in listed] == ["one"]
    watch = kube.watch(Pod, namespace="default", resource_version=listed.resourceVersion)
    await kube.create(pod("two"))
    await kube.delete(Pod, "one", namespace="default")
    seen: list[tuple[str, str]] = []
    async for event, each in watch:
        seen.append((event, each.metadata.name))
        if event == "DELETED":
            break
    assert seen[0] == ("ADDED", "two")
    assert seen[-1] == ("DELETED", "one")


async def test_a_custom_resource_lives_like_any_other(kube: Any, crd: dict[str, Any]) -> None:
    await kube.create(CustomResourceDefinition.from_dict(crd))
    await asyncio.wait_for(
        kube.wait(CustomResourceDefinition, "widgets.example.com", for_conditions=["Established"]),
        60,
    )
    widget: Any = create_namespaced_resource("example.com", "v1", "Widget", "widgets")
    made = await kube.create(
        widget(metadata={"name": "w", "namespace": "default"}, spec={"size": 3, "other": 1})
    )
    assert made.spec == {"size": 3}
    up = widget.Status(metadata=made.metadata, status={"phase": "Up"})
    await kube.replace(up)
    again = await kube.get(widget, "w", namespace="default")
    assert (again.spec, again.status) == ({"size": 3}, {"phase": "Up"})
    assert again.metadata.generation == 1


async def test_a_namespace_goes_with_all_that_is_in_it(kube: Any) -> None:
    await kube.create(Namespace(metadata=ObjectMeta(name="short")))
    await kube.create(ConfigMap(metadata=ObjectMeta(name="x", namespace="short"), data={}))
    listed = kube.list(Namespace)
    assert "short" in {each.metadata.name async for each in listed}
    watch = kube.watch(Namespace, resource_version=listed.resourceVersion)
    await kube.delete(Namespace, "short")
    phases = []
    async for event, each in watch:
        phases.append(each.status.phase)
        if event == "DELETED":
            break
    assert set(phases) == {"Terminating"}
    assert [each async for each in kube.list(ConfigMap, namespace="short")] == []
