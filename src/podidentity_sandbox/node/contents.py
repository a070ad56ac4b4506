"""Contents of the files of a pod's volumes: configMap, secret, downwardAPI and projected. Pure.

Messages are those of pkg/volume/configmap, secret and projected of Kubernetes.
https://kubernetes.io/docs/concepts/storage/projected-volumes/
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.atomic_writer import VolumeFile
from podidentity_sandbox.node.spec import VolumeRefused, field_value

KINDS = ("configMap", "secret", "downwardAPI", "projected")
RESOURCES = {"configMap": "configmaps", "secret": "secrets"}
"""The resources whose objects are sources of files and variables, by their name in a spec."""
_MODE = 0o644

Source = tuple[str, Mapping[str, Any]]
"""One of configMap, secret, downwardAPI, serviceAccountToken; and its part of the spec."""
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentSources:
    """All that contents depend on beside the spec."""

    objects: Mapping[tuple[str, str], Object | None]
    """By resource and name; None for one that is not there."""
    fields: Mapping[str, str]
    """The values that `fieldRef` can name."""
    token: Callable[[str, int], bytes]
    """The token for an audience, with a life of so many seconds."""
    user: int | None = None
    """As whom every container of the pod runs; None where they differ or one does not say."""
    group: int | None = None
    """The pod's fsGroup."""


def sources_of(volume: Mapping[str, Any]) -> list[Source]:
    """Return the sources of a volume of one of KINDS, in a projected volume's form."""
    if "projected" in volume:
        listed = volume["projected"].get("sources") or ()
        return [(kind, said) for source in listed for kind, said in source.items()]
    kind = next(kind for kind in KINDS if kind in volume)
    said = dict(volume[kind])
    if kind == "secret":
        said["name"] = said.get("secretName", "")
    return [(kind, said)]


def references(sources: Iterable[Source]) -> list[tuple[str, str]]:
    """Return the objects that sources name, as (resource, name)."""
    return [(RESOURCES[kind], said["name"]) for kind, said in sources if kind in RESOURCES]


def contents(volume: Mapping[str, Any], material: ContentSources) -> dict[str, VolumeFile]:
    """Return a volume's files by their path in it; raise VolumeRefused or ValueError.

    A token has the volume's mode and is root's, like every file, unless the pod names one user for
    all of its containers, or an fsGroup: then it is closed to all but these (collectData).
    https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/projected/projected.go
    """
    kind = next(kind for kind in KINDS if kind in volume)
    mode = volume[kind].get("defaultMode")
    files: dict[str, VolumeFile] = {}
    for source, said in sources_of(volume):
        user = material.user if source == "serviceAccountToken" else None
        for path, data, own in _files(source, said, material):
            files[path] = VolumeFile(data, own or mode or _MODE, user)
    return files


def _files(
    kind: str, said: Object, material: ContentSources
) -> Iterator[tuple[str, bytes, int | None]]:
    if kind in RESOURCES:
        yield from _of_object(kind, said, material.objects[RESOURCES[kind], said["name"]])
    elif kind == "downwardAPI":
        for item in said.get("items") or ():
            if "fieldRef" not in item:
                why = "the sandbox does not serve resourceFieldRef as a source of files"
                raise VolumeRefused(why)
            value = field_value(material.fields, item["fieldRef"]["fieldPath"])
            yield item["path"], value.encode(), item.get("mode")
    elif kind == "serviceAccountToken":
        seconds = said.get("expirationSeconds") or 3600
        closed = material.user is not None or material.group is not None
        text = material.token(said.get("audience") or "", seconds)
        yield said["path"], text, 0o600 if closed else None
    else:
        raise VolumeRefused(f"the sandbox does not serve {kind} as a source of files")


def _of_object(
    kind: str, said: Object, found: Object | None
) -> Iterator[tuple[str, bytes, int | None]]:
    optional = bool(said.get("optional"))
    if found is None:
        if optional:
            return
        raise VolumeRefused(f'{kind.lower()} "{said["name"]}" not found')
    data = decoded(kind, found)
    items = said.get("items")
    if not items:
        yield from ((key, value, None) for key, value in data.items())
        return
    for item in items:
        if item["key"] in data:
            yield item["path"], data[item["key"]], item.get("mode")
        elif not optional:
            what = (
                "configmap references non-existent config"
                if kind == "configMap"
                else ("references non-existent secret")
            )
            raise VolumeRefused(f"{what} key: {item['key']}")


def decoded(kind: str, found: Object) -> dict[str, bytes]:
    if kind == "secret":
        return {k: base64.b64decode(v) for k, v in (found.get("data") or {}).items()}
    binary = {k: base64.b64decode(v) for k, v in (found.get("binaryData") or {}).items()}
    return {k: v.encode() for k, v in (found.get("data") or {}).items()} | binary
