"""Finds fields that a body says twice, in the words of the decoders of the real server.

JSON: https://github.com/kubernetes-sigs/json, YAML: https://github.com/kubernetes-sigs/yaml
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from podidentity_sandbox.cluster.jsontypes import Json


class Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: what looks like a date stays text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its fields came again."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.again = [] if len(self) == len(names) else list(dict.fromkeys(_repeated(names)))


def _repeated(names: list[str]) -> Iterator[str]:
    return (name for at, name in enumerate(names) if name in names[:at])


def in_json(raw: bytes) -> list[str]:
    """Return a sentence for each field that valid JSON says twice: `duplicate field "spec.a"`."""
    document = json.loads(raw, object_pairs_hook=_Object)
    return [f'duplicate field "{path}"' for path in _paths(document, "")]


def _paths(value: Json, path: str) -> Iterator[str]:
    if isinstance(value, _Object):
        head = f"{path}." if path else ""
        yield from (f"{head}{name}" for name in value.again)
        for name, item in value.items():
            yield from _paths(item, f"{head}{name}")
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _paths(item, f"{path}[{at}]")


def in_yaml(raw: bytes) -> list[str]:
    """Return one text for all the keys that valid YAML says twice; [] where there are none."""
    lines = list(_lines(yaml.compose(raw, Loader=Loader)))  # a subclass of SafeLoader
    return ["\n".join(["yaml: unmarshal errors:", *lines])] if lines else []


def _lines(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                yield f'  line {line}: key "{key.value}" already set in map'
            seen.add(key.value)
            yield from _lines(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _lines(item)
