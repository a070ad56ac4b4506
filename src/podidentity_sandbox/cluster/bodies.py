"""What a request says besides its path: body, and options in the query."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import yaml
from aiohttp import web

from podidentity_sandbox.cluster import doubles, shapes, status
from podidentity_sandbox.cluster.doubles import Loader
from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.protobuf.decoding import PROTOBUF, decode
from podidentity_sandbox.cluster.protobuf.wire import Malformed
from podidentity_sandbox.cluster.reviews import ATTRIBUTES
from podidentity_sandbox.cluster.shapes import compiled

BODY_LIMIT = 3 * 1024 * 1024
"""Bytes of a request's body, as in the real server."""
JSON = "application/json"
YAML = "application/yaml"
READ = (JSON, YAML, PROTOBUF)


_QUESTION = compiled(
    {
        "spec": {
            "audiences": [str],
            "expirationSeconds": int,
            "boundObjectRef": {"kind": str, "apiVersion": str, "name": str, "uid": str},
            "token": str,
            "namespace": str,
            "user": str,
            "uid": str,
            "groups": [str],
            "resourceAttributes": dict.fromkeys(ATTRIBUTES, str),
            "nonResourceAttributes": {"path": str, "verb": str},
        }
    }
)
"""What the questions that are answered here may ask, all in one."""


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
    return doubles.in_yaml(raw) if content_type == YAML else doubles.in_json(raw)


def question(body: Json) -> Obj:
    """Return the body of a question, such as a TokenRequest; raise 400."""
    clean = shapes.without_nulls(body)
    misfit = shapes.misfit(_QUESTION, clean)
    if misfit:
        raise status.bad_request(f"the question cannot be read: {misfit}")
    asked: Obj = clean
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
