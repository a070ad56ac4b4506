"""The body of a request, and the options in its query."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml
from aiohttp import web

from podidentity_sandbox.cluster import Json, Obj, shapes, status
from podidentity_sandbox.cluster.fields import builtin
from podidentity_sandbox.cluster.protobuf.decoder import PROTOBUF, Malformed, decode


# libyaml's is ten times as fast; an installation of PyYAML may be without it.
class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
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


# ---- Bodies and queries

BODY_LIMIT = 3 * 1024 * 1024
"""Bytes of a request's body, as in the real server."""
JSON = "application/json"
YAML = "application/yaml"
READ = (JSON, YAML, PROTOBUF)


def parse(content_type: str, raw: bytes) -> Json:
    """Return a body of one of READ; raise 400 where it cannot be read, 415 for other types."""
    if content_type not in READ:
        raise status.unsupported_media_type(READ)
    try:
        if content_type == PROTOBUF:
            return decode(raw)
        if content_type == JSON:
            return msgspec.json.decode(raw)
        return yaml.load(raw, Loader=Loader)  # noqa: S506 - a subclass of SafeLoader
    except (Malformed, OverflowError) as error:
        raise status.bad_request(str(error)) from error
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        form = "yaml" if content_type == YAML else "json"
        message = f"couldn't get version/kind; {form} parse error: {error}"
        raise status.bad_request(message) from error


async def read(request: web.Request) -> Json:
    """Return the decoded body of a create or update."""
    return parse(content_type(request), await raw(request))


def content_type(request: web.Request) -> str:
    """Return the type of a body; JSON where a client says none."""
    return request.content_type if "Content-Type" in request.headers else JSON


def doubled(content_type: str, raw: bytes) -> list[str]:
    """Return a sentence for each field that a body, which could be read, says twice."""
    if content_type == PROTOBUF:
        return []
    return in_yaml(raw) if content_type == YAML else in_json(raw)


def question(group: str, kind: str, body: Json) -> Obj:
    """Return the body of a question, such as a TokenRequest; raise 400."""
    asked: Obj = shapes.without_nulls(body)
    if misfit := shapes.misfit(builtin.schema(group, "v1", kind), asked):
        raise status.undecodable(kind, "v1", misfit)
    return asked


async def raw(request: web.Request) -> bytes:
    """Return the body; raise 413."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise status.too_large(BODY_LIMIT) from error


def number(query: Mapping[str, str], name: str, default: int = 0) -> int:
    """Return a number of the query; raise 400."""
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)
