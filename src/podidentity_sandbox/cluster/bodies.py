"""The body of a request, and the options of it, in the query or in the body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import yaml
from aiohttp import web

from podidentity_sandbox.cluster import Json, Obj, status
from podidentity_sandbox.cluster.objects import Write, without_nulls
from podidentity_sandbox.cluster.resources import Deletion


# libyaml's is ten times as fast; an installation of PyYAML may be without it.
class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes reads it: what looks like a date stays text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


# ---- Bodies and queries

BODY_LIMIT = 3 * 1024 * 1024
"""Bytes of a request's body, as in the real server."""
JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
READ = (JSON, YAML)


def parse(content_type: str, raw: bytes) -> Json:
    """Return a body of one of READ; raise 400 where it cannot be read, 415 for other types."""
    if content_type == PROTOBUF:
        raise status.left_out(415, "UnsupportedMediaType", "protobuf")
    if content_type not in READ:
        raise status.unsupported_media_type(READ)
    try:
        if content_type == JSON:
            return msgspec.json.decode(raw)
        return yaml.load(raw, Loader=Loader)  # noqa: S506 - a subclass of SafeLoader
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        form = "yaml" if content_type == YAML else "json"
        message = f"couldn't get version/kind; {form} parse error: {error}"
        raise status.bad_request(message) from error


async def read(request: web.Request) -> Json:
    return parse(content_type(request), await raw(request))


def content_type(request: web.Request) -> str:
    """Return the type of a body; JSON where a client says none."""
    return request.content_type if "Content-Type" in request.headers else JSON


def question(kind: str, body: Json) -> Obj:
    """Return the body of a question, such as a TokenRequest; raise 400."""
    if not isinstance(body, dict):
        raise status.undecodable(kind, "v1", "it is no object")
    asked: Obj = without_nulls(body)
    return asked


async def raw(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise status.too_large(BODY_LIMIT) from error


def number(query: Mapping[str, str], name: str, default: int = 0, *, signed: bool = False) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.removeprefix("-" if signed else "").isdigit():
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


# ---- Options of a write: Create-, Update-, Patch- and DeleteOptions

VALIDATIONS = ("Ignore", "Warn", "Strict")
POLICIES = ("", "Background", "Foreground", "Orphan")


def options_of_query(query: Mapping[str, str]) -> Write:
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in VALIDATIONS:
        raise status.bad_request(f"fieldValidation: none of {', '.join(VALIDATIONS)}")
    return Write(dry_run=_dry_run([query.get("dryRun", "")]), validation=validation)


def _dry_run(words: Sequence[str]) -> bool:
    said = set(filter(None, words))
    if not said <= {"All"}:
        raise status.bad_request("dryRun: All or nothing")
    return bool(said)


async def read_delete_options(request: web.Request) -> Deletion:
    """Return the options of the body, or else of the query; raise 400."""
    query = request.query
    options = without_nulls(await read(request)) if request.can_read_body else None
    if options is None:
        options = {"dryRun": query.getall("dryRun", [])}
        if query.get("gracePeriodSeconds"):
            options["gracePeriodSeconds"] = number(query, "gracePeriodSeconds", signed=True)
        if "propagationPolicy" in query:
            options["propagationPolicy"] = query["propagationPolicy"]
    if not isinstance(options, dict):
        raise status.bad_request("couldn't get version/kind; json parse error: no object")
    propagation = options.get("propagationPolicy", "")
    if propagation not in POLICIES:
        raise status.bad_request(f"propagationPolicy: none of {', '.join(POLICIES[1:])}")
    grace = options.get("gracePeriodSeconds")
    demanded = options.get("preconditions", {})
    return Deletion(
        # https://github.com/kubernetes/apiserver/blob/v0.32.3/pkg/registry/rest/delete.go
        grace_seconds=1 if grace is not None and grace < 0 else grace,
        propagation=propagation,
        uid=demanded.get("uid", ""),
        revision=demanded.get("resourceVersion", ""),
        dry_run=_dry_run(options.get("dryRun", [])),
    )
