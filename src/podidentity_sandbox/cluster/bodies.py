"""The body of a request, and the options of it, in the query or in the body."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import yaml
from aiohttp import web

from podidentity_sandbox.cluster import Json, Obj, shapes, status
from podidentity_sandbox.cluster.fields import built_in
from podidentity_sandbox.cluster.objects import Write
from podidentity_sandbox.cluster.paths import truth
from podidentity_sandbox.cluster.resources import Deletion
from podidentity_sandbox.cluster.status import Cause, StatusError


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
    """Return the decoded body of a create or update."""
    return parse(content_type(request), await raw(request))


def content_type(request: web.Request) -> str:
    """Return the type of a body; JSON where a client says none."""
    return request.content_type if "Content-Type" in request.headers else JSON


def doubled(content_type: str, raw: bytes) -> list[str]:
    """Return a sentence for each field that a body, which could be read, says twice."""
    if content_type == YAML:
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


# ---- Options of a write: Create-, Update-, Patch- and DeleteOptions
#
# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/apis/meta/v1/validation/validation.go

VALIDATIONS = ("Ignore", "Warn", "Strict")
GROUP = "meta.k8s.io"


def options_of_query(query: Mapping[str, str], kind: str) -> Write:
    """Return how a write is meant; `kind` is CreateOptions or another; raise 422."""
    validation = query.get("fieldValidation", "")
    dry_run = [text for text in [query.get("dryRun", "")] if text]
    faults = [*dry_run_fault(dry_run)]
    if validation and validation not in VALIDATIONS:
        faults.append(status.unsupported("fieldValidation", validation, ["", *sorted(VALIDATIONS)]))
    if faults:
        raise status.invalid_object(kind, GROUP, "", faults)
    return Write(dry_run=bool(dry_run), validation=validation or "Warn")


def dry_run_fault(values: Sequence[str]) -> Sequence[Cause]:
    """Return the fault of dryRun, which is All or nothing."""
    if set(values) <= {"All"}:
        return []
    shown = ", ".join(json.dumps(value) for value in values)
    message = f'Unsupported value: []string{{{shown}}}: supported values: "All"'
    return [Cause("dryRun", "FieldValueNotSupported", message)]


# ---- DeleteOptions, by the body of the request or else by its query
#
# https://github.com/kubernetes/apiserver/blob/v0.32.3/pkg/endpoints/handlers/delete.go

POLICIES = ("Foreground", "Background", "Orphan")
_DELETE_OPTIONS = "DeleteOptions"
_FIELDS = built_in("meta", "v1", _DELETE_OPTIONS)


async def read_delete_options(request: web.Request) -> Deletion:
    """Return the options; raise 400 for an unreadable body or query, 422 for invalid ones.

    A field of the wrong type is 500, since the real server has no better code for it.
    """
    body = await read(request) if request.can_read_body else None
    options = _of_query(request) if body is None else shapes.without_nulls(body)
    if not isinstance(options, dict):
        raise status.bad_request("couldn't get version/kind; json parse error: no object")
    if misfit := shapes.misfit(_FIELDS, options):
        raise StatusError(500, "", misfit)
    policy, faults = options.get("propagationPolicy"), []
    if policy is not None and "orphanDependents" in options:
        why = "orphanDependents and deletionPropagation cannot be both set"
        faults.append(status.invalid("propagationPolicy", policy, why))
    if policy is not None and policy not in POLICIES:
        faults.append(status.unsupported("propagationPolicy", policy, [*POLICIES, "nil"]))
    faults += dry_run_fault(options.get("dryRun", []))
    if faults:
        raise status.invalid_object(_DELETE_OPTIONS, GROUP, "", faults)
    grace = options.get("gracePeriodSeconds")
    demanded = options.get("preconditions", {})
    return Deletion(
        # https://github.com/kubernetes/apiserver/blob/v0.32.3/pkg/registry/rest/delete.go
        grace_seconds=1 if grace is not None and grace < 0 else grace,
        propagation=policy or ("Orphan" if options.get("orphanDependents") else ""),
        uid=demanded.get("uid", ""),
        revision=demanded.get("resourceVersion", ""),
        dry_run=bool(options.get("dryRun")),
    )


def _of_query(request: web.Request) -> Obj:
    query = request.query
    options: Obj = {"dryRun": query.getall("dryRun", [])}
    if query.get("gracePeriodSeconds"):
        options["gracePeriodSeconds"] = number(query, "gracePeriodSeconds", signed=True)
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "orphanDependents" in query:
        options["orphanDependents"] = truth(query["orphanDependents"])
    return options
