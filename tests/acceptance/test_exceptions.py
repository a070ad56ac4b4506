"""What becomes of an AzurePodIdentityException, as `podidentity check` tells an operator."""

from __future__ import annotations

import json

from tests.acceptance.directory import manifest
from tests.acceptance.mic.controlled import API
from tests.acceptance.sandbox import one_node

KIND = "AzurePodIdentityException"
LABELS = {"tier": "exempt"}


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
        listed = [each for each in place.check() if each["kind"] == KIND]
        found = {f"{each['namespace']}/{each['name']}": each for each in listed}
        assert set(found) == {"default/e", "default/bad"}
        assert found["default/e"]["reason"] == "ExceptionIgnored"
        assert found["default/e"]["switch"] == "--exception-namespaces=default,kube-system"
        assert "spec.azureIdentities" in found["default/bad"]["message"]
        told = place.run("sh", "-c", "podidentity explain pod default/exempt || true")
        assert "AzurePodIdentityException default/e has no effect in its namespace" in told
        kept = json.loads(place.run("kubectl", "get", KIND, "--all-namespaces", "-o", "json"))
        assert not any("status" in each for each in kept["items"])
