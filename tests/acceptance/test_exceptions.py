"""What becomes of an AzurePodIdentityException, as `podidentity check` tells an operator."""

from __future__ import annotations

import json

from tests.acceptance.directory import manifest
from tests.acceptance.sandbox import Sandbox, one_node
from tests.acceptance.scenario import API

KIND = "AzurePodIdentityException"
LABELS = {"tier": "exempt"}


def found_by_check(place: Sandbox) -> dict[str, dict[str, str]]:
    """Return what `podidentity check` finds wrong with exceptions, by namespace/name."""
    # `check` ends with 1 where it found something.
    listed = json.loads(place.run("sh", "-c", "podidentity check -o json || [ $? = 1 ]"))
    return {f"{each['namespace']}/{each['name']}": each for each in listed if each["kind"] == KIND}


async def test_check_names_the_exceptions_without_effect_and_no_node_writes_on_them() -> None:
    async with one_node("exceptions") as place:
        place.run("podidentity", "enable")
        for namespace in ("default", "kube-system"):
            spec = {"containers": [{"name": "main", "image": "idle"}]}
            meta = {"labels": LABELS}
            made = manifest("v1", "Pod", "exempt", namespace, metadata=meta, spec=spec)
            place.apply(made)
            place.apply(manifest(API, KIND, "e", namespace, spec={"podLabels": LABELS}))
        place.apply(manifest(API, KIND, "bad", spec={"azureIdentities": ["mine"]}))
        found = found_by_check(place)
        assert set(found) == {"default/e", "default/bad"}
        assert found["default/e"]["reason"] == "ExceptionIgnored"
        assert found["default/e"]["switch"] == "--exception-namespaces=default,kube-system"
        assert "spec.azureIdentities" in found["default/bad"]["message"]
        told = place.run("sh", "-c", "podidentity explain pod default/exempt || true")
        assert "AzurePodIdentityException default/e has no effect in its namespace" in told
        kept = json.loads(place.run("kubectl", "get", KIND, "--all-namespaces", "-o", "json"))
        assert not any("status" in each for each in kept["items"])
