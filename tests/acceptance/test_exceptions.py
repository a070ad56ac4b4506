"""What becomes of an AzurePodIdentityException, as `kubectl` shows it to whoever made it."""

from __future__ import annotations

import json

from tests.acceptance.directory import manifest
from tests.acceptance.scene import API
from tests.acceptance.stage import Stage, stage

KIND = "AzurePodIdentityException"
LABELS = {"tier": "exempt"}
APPLY = ("podidentity", "sandbox", "apply", "--wait", "-f", "-")


def told(place: Stage, namespace: str, status: str, name: str = "e") -> str:
    """Wait until the exception's condition has this status; return reason and message."""
    it = (f"azurepodidentityexception/{name}", "--namespace", namespace)
    place.run("kubectl", "wait", f"--for=condition=Effective={status}", "--timeout=30s", *it)
    found = json.loads(place.run("kubectl", "get", *it, "-o", "json"))
    [condition] = found["status"]["conditions"]
    assert condition["observedGeneration"] == found["metadata"]["generation"]
    return f"{condition['reason']}: {condition['message']}"


async def test_an_exception_says_by_a_condition_whether_it_has_effect() -> None:
    async with stage("exceptions") as place:
        place.run("podidentity", "enable")
        for namespace in ("default", "kube-system"):
            spec = {"containers": [{"name": "main", "image": "idle"}]}
            meta = {"labels": LABELS}
            made = manifest("v1", "Pod", "exempt", namespace, metadata=meta, spec=spec)
            place.run(*APPLY, given=made)
            place.run(*APPLY, given=manifest(API, KIND, "e", namespace, spec={"podLabels": LABELS}))
        place.run(*APPLY, given=manifest(API, KIND, "bad", spec={"azureIdentities": ["mine"]}))
        assert told(place, "kube-system", "True").startswith("NamespaceAllowed: ")
        without = told(place, "default", "False")
        assert without.startswith("NamespaceNotAllowed: ")
        assert "--exception-namespaces=default,kube-system" in without
        assert "spec.azureIdentities" in told(place, "default", "False", "bad")
