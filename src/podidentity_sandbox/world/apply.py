"""`apply`: makes the cluster agree with a manifest, by the fewest writes.

Not kubectl's three-way merge: nothing is removed because a manifest no longer names it. An object
that already says all that the manifest says is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.api import MERGE_PATCH, Api, ApiError, Object, ready

# ---- Kinds of the cluster, by the names that people and manifests use

_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A served kind."""

    api_version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Its group; "" is the core group."""
        return self.api_version.rpartition("/")[0]

    def label(self, name: str) -> str:
        """Return how kubectl names an object: `pod/x`, `daemonset.apps/x`."""
        suffix = f".{self.group}" if self.group else ""
        return f"{self.singular}{suffix}/{name}"

    def path(self, namespace: str | None, name: str = "") -> str:
        """Return the path of an object, or of the collection; all namespaces when it is None."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *([name] if name else [])])

    def is_called(self, word: str) -> bool:
        """Whether a person's word means it: `pods`, `pod`, `po`, `pods.v1.`, `x.group`."""
        first, _, group = word.lower().partition(".")
        names = {self.plural, self.singular or self.kind.lower(), *self.short_names}
        return first in names and group in ("", self.group)


class Kinds:
    """Asks the cluster each time: a CustomResourceDefinition may have come a moment ago."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def of_manifest(self, api_version: str, kind: str) -> Kind:
        """Return the kind of a manifest; raise SandboxError as kubectl words it."""
        try:
            found = [each for each in self._in(api_version) if each.kind == kind]
        except ApiError as error:
            if error.code != _NOT_FOUND:
                raise
            found = []
        if not found:
            raise SandboxError(
                f'no matches for kind "{kind}" in version "{api_version}"; '
                "ensure CRDs are installed first"
            )
        return found[0]

    def of_word(self, word: str) -> Kind:
        """Return the kind that a person means; raise SandboxError as kubectl words it."""
        for version in self._versions():
            for kind in self._in(version):
                if kind.is_called(word):
                    return kind
        raise SandboxError(f'the server doesn\'t have a resource type "{word}"')

    def _versions(self) -> Iterator[str]:
        yield "v1"
        for group in self._api.request("GET", "/apis")["groups"]:
            yield group["preferredVersion"]["groupVersion"]

    def _in(self, api_version: str) -> list[Kind]:
        root = "/apis" if "/" in api_version else "/api"
        found = self._api.request("GET", f"{root}/{api_version}")["resources"]
        return [
            Kind(
                api_version=api_version,
                kind=each["kind"],
                plural=each["name"],
                singular=each.get("singularName") or each["kind"].lower(),
                namespaced=each["namespaced"],
                short_names=tuple(each.get("shortNames") or ()),
            )
            for each in found
            if "/" not in each["name"]
        ]


# ---- Manifests


def documents(text: str) -> Iterator[Object]:
    """Yield the objects of a YAML or JSON text, those of a List one by one; raise SandboxError."""
    import yaml  # what only reads objects needs none

    try:
        # libyaml's loader is ten times as fast; an installation of PyYAML may be without it.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found = [each for each in yaml.load_all(text, Loader=loader) if each is not None]
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
