"""What a request says besides its path: body, and options in the query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import yaml
from aiohttp import web

from podidentity_sandbox.cluster import patch, shapes, status
from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.protobuf.decoding import PROTOBUF, decode
from podidentity_sandbox.cluster.protobuf.wire import Malformed
from podidentity_sandbox.cluster.resources import Deletion, Write
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
            "user": str,
            "uid": str,
            "groups": [str],
            "resourceAttributes": dict.fromkeys(ATTRIBUTES, str),
            "nonResourceAttributes": {"path": str, "verb": str},
        }
    }
)
"""What the questions that are answered here may ask, all in one."""


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: what looks like a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(content_type: str, raw: bytes) -> Json:
    """Return a body of one of READ; raise 400 where it cannot be read, 415 for other types."""
    if content_type not in READ:
        raise status.unsupported_media_type(READ)
    try:
        if content_type == PROTOBUF:
            return decode(raw)
        if content_type == JSON:
            return msgspec.json.decode(raw)
        return yaml.load(raw, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except (Malformed, OverflowError) as error:
        raise status.bad_request(str(error)) from error
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        form = "yaml" if content_type == YAML else "json"
        message = f"couldn't get version/kind; {form} parse error: {error}"
        raise status.bad_request(message) from error


async def read(request: web.Request) -> Json:
    """Return the decoded body of a create or update."""
    return parse(
        request.content_type if "Content-Type" in request.headers else JSON, await raw(request)
    )


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


async def read_patch(request: web.Request) -> Json:
    """Return the decoded body of a patch; raise 415 for a patch type that is not applied here."""
    if request.content_type not in patch.TYPES:
        raise status.unsupported_media_type(patch.TYPES)
    return parse(JSON, await raw(request))


def number(query: Mapping[str, str], name: str, default: int = 0) -> int:
    """Return a number of the query; raise 400."""
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def write_options(query: Mapping[str, str]) -> Write:
    """Return how a write is meant."""
    return Write(
        dry_run=_dry_run(query.get("dryRun", "")),
        validation=query.get("fieldValidation") or "Warn",
    )


def _dry_run(text: str) -> bool:
    if text not in ("", "All"):
        raise status.bad_request(f'invalid dryRun "{text}": supported values: "All"')
    return text == "All"


async def deletion(request: web.Request) -> Deletion:
    """Return DeleteOptions from the body if there is one, else from the query."""
    query = request.query
    body = await read(request) if request.can_read_body else None
    options: dict[str, Any] = body if isinstance(body, dict) else {}
    demanded = options.get("preconditions") or {}
    grace = options.get("gracePeriodSeconds")
    if grace is None and "gracePeriodSeconds" in query:
        grace = number(query, "gracePeriodSeconds")
    dry_run = options.get("dryRun") or [query.get("dryRun", "")]
    return Deletion(
        grace_seconds=grace,
        propagation=options.get("propagationPolicy") or query.get("propagationPolicy", ""),
        uid=demanded.get("uid") or "",
        revision=demanded.get("resourceVersion") or "",
        dry_run=_dry_run(dry_run[0]),
    )
