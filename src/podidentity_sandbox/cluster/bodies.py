"""The body of a request, and the options in its query."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml
from aiohttp import web

from podidentity_sandbox.cluster import Json, Obj, shapes, status
from podidentity_sandbox.cluster.fields import built_in
from podidentity_sandbox.cluster.protobuf.decoder import PROTOBUF, Malformed, decode


# libyaml's is ten times as fast; an installation of PyYAML may be without it.
class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes reads it: what looks like a date stays text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Pairs(list[tuple[str, Any]]):
    """The fields of a JSON object as they come: one may come again."""


def _repeated(value: Json, path: str) -> Iterator[str]:
    """Yield the paths of the fields that come again in JSON read as _Pairs, or in nodes of YAML."""
    if isinstance(value, yaml.SequenceNode):
        value = value.value
    elif isinstance(value, yaml.MappingNode):
        value = _Pairs((key.value, item) for key, item in value.value)
    if isinstance(value, _Pairs):
        head = f"{path}." if path else ""
        names = Counter(name for name, _ in value)
        yield from (f"{head}{name}" for name, count in names.items() if count > 1)
        for name, item in dict(value).items():
            yield from _repeated(item, f"{head}{name}")
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _repeated(item, f"{path}[{at}]")


# ---- Bodies and queries

BODY_LIMIT = 3 * 1024 * 1024
"""Bytes of a request's body, as in the real server."""
JSON = "application/json"
YAML = "application/yaml"
APPLY = "application/apply-patch+yaml"
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
    if content_type in (YAML, APPLY):
        document = yaml.compose(raw, Loader=Loader)  # a subclass of SafeLoader
    else:
        document = json.loads(raw, object_pairs_hook=_Pairs)
    return [f'duplicate field "{path}"' for path in _repeated(document, "")]


def question(group: str, kind: str, body: Json) -> Obj:
    """Return the body of a question, such as a TokenRequest; raise 400."""
    asked: Obj = shapes.without_nulls(body)
    if misfit := shapes.misfit(built_in(group, "v1", kind), asked):
        raise status.undecodable(kind, "v1", misfit)
    return asked


async def raw(request: web.Request) -> bytes:
    """Return the body; raise 413."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise status.too_large(BODY_LIMIT) from error


def number(query: Mapping[str, str], name: str, default: int = 0, *, signed: bool = False) -> int:
    """Return a number of the query; raise 400."""
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.removeprefix("-" if signed else "").isdigit():
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)
