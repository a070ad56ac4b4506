"""`apply`: what a manifest says becomes so, by the least that is needed.

Not kubectl's three-way merge: nothing is removed because a manifest no longer names it. What is
there and says all that the manifest says is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.api import MERGE_PATCH, Api, ApiError, Object, ready
from podidentity_sandbox.world.kinds import Kind, Kinds

_NOT_FOUND = 404


def documents(text: str) -> Iterator[Object]:
    """Yield the objects of a YAML or JSON text, those of a List one by one; raise SandboxError."""
    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as cause:
        raise SandboxError(f"the manifest is no YAML: {cause}") from cause
    for document in found:
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from map(_checked, document.get("items") or ())
        else:
            yield _checked(document)


def _checked(document: object) -> Object:
    fields = document if isinstance(document, dict) else {}
    lacking = [name for name in ("apiVersion", "kind", "metadata") if name not in fields]
    if lacking:
        raise SandboxError(f"a document of the manifest has no {' and no '.join(lacking)}")
    return fields


def says(live: Any, wanted: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether `live` holds all that `wanted` says; lists must be of one length."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            says(live.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(says(*pair) for pair in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


class Applier:
    """Applies manifests, each object in its own namespace or in `namespace`."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._kinds = Kinds(api)
        self._pods: dict[str, list[str]] = {}

    def apply(self, wanted: Object) -> str:
        """Make it so; return kubectl's line, as `pod/x created`. Raise SandboxError."""
        kind = self._kinds.of_manifest(wanted["apiVersion"], wanted["kind"])
        name = str(wanted["metadata"].get("name", ""))
        namespace = wanted["metadata"].get("namespace") or self._namespace
        if kind.kind == "Pod":
            self._pods.setdefault(namespace, []).append(name)
        return f"{kind.label(name)} {self._write(kind, namespace, name, wanted)}"

    def wait_for_pods(self, seconds: float) -> None:
        """Wait until all pods that were applied are Ready; raise SandboxError that says why not."""
        for namespace, names in self._pods.items():
            late = self._api.wait_for(f"/api/v1/namespaces/{namespace}/pods", names, ready, seconds)
            if late:
                reasons = "; ".join(f"pod {name}: {why_not(pod)}" for name, pod in late.items())
                raise SandboxError(f"not Ready after {seconds:g} s: {reasons}")

    def _write(self, kind: Kind, namespace: str, name: str, wanted: Object) -> str:
        try:
            live = self._api.request("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.code != _NOT_FOUND:
                raise
            self._api.request("POST", kind.path(namespace), wanted)
            return "created"
        if says(live, wanted):
            return "unchanged"
        self._api.request("PATCH", kind.path(namespace, name), wanted, content_type=MERGE_PATCH)
        return "configured"


def why_not(pod: Object | None) -> str:
    """Return a pod's state in one word or sentence: the reason of a container, else its phase."""
    if pod is None:
        return "gone"
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        for state in ("waiting", "terminated"):
            found = container.get("state", {}).get(state)
            if found and found.get("reason"):
                return " ".join(filter(None, (found["reason"], found.get("message"))))
    return str(status.get("reason") or status.get("phase") or "Unknown")
