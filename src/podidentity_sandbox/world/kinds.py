"""Kinds of the cluster, by the names that people and manifests use, as its discovery lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.api import Api, ApiError

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
