"""Options of a write, by its query or its body: Create-, Update-, Patch- and DeleteOptions.

Checked as in
https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/validation/validation.go
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from aiohttp import web

from podidentity_sandbox.cluster import Obj, bodies, shapes, status
from podidentity_sandbox.cluster.fields import built_in
from podidentity_sandbox.cluster.objects import Write
from podidentity_sandbox.cluster.paths import truth
from podidentity_sandbox.cluster.resources import Deletion
from podidentity_sandbox.cluster.status import Cause, StatusError

MANAGER_LIMIT = 128
"""Bytes of a field manager's name."""
VALIDATIONS = ("Ignore", "Warn", "Strict")
GROUP = "meta.k8s.io"


def options_of_query(
    query: Mapping[str, str], agent: str, kind: str, *, apply: bool = False
) -> Write:
    """Return how a write is meant; `agent` is its User-Agent, `kind` CreateOptions or another.

    Raises 422 for what makes no sense.
    """
    manager = query.get("fieldManager", "")
    validation = query.get("fieldValidation", "")
    dry_run = [text for text in [query.get("dryRun", "")] if text]
    faults = [*dry_run_fault(dry_run), *_manager_faults(manager, needed=apply)]
    if validation and validation not in VALIDATIONS:
        faults.append(status.unsupported("fieldValidation", validation, ["", *sorted(VALIDATIONS)]))
    if "force" in query and not apply:
        detail = "may not be specified for non-apply patch"
        faults.append(status.forbidden_field("force", detail))
    if faults:
        raise status.invalid_object(kind, GROUP, "", faults)
    return Write(
        dry_run=bool(dry_run),
        validation=validation or "Warn",
        manager=manager or _of_agent(agent),
    )


def _manager_faults(name: str, *, needed: bool) -> Sequence[Cause]:
    if needed and not name:
        return [status.required("fieldManager", "is required for apply patch")]
    if len(name.encode()) > MANAGER_LIMIT:
        return [status.too_long("fieldManager", MANAGER_LIMIT)]
    detail = "should only contain printable characters"
    return [] if name.isprintable() else [status.invalid("fieldManager", name, detail)]


def _of_agent(agent: str) -> str:
    """Return the manager that a User-Agent stands for: the text before its first slash."""
    name = "".join(filter(str.isprintable, agent.partition("/")[0]))
    return name.encode()[:MANAGER_LIMIT].decode(errors="ignore") or "unknown"


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
# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/apis/meta/v1/validation/validation.go

POLICIES = ("Foreground", "Background", "Orphan")
_KIND = "DeleteOptions"
_FIELDS = built_in("meta", "v1", _KIND)


async def read_delete_options(request: web.Request) -> Deletion:
    """Return the options; raise 400 for an unreadable body or query, 422 for invalid ones.

    A field of the wrong type is 500, since the real server has no better code for it.
    """
    body = await bodies.read(request) if request.can_read_body else None
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
        raise status.invalid_object(_KIND, GROUP, "", faults)
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
        options["gracePeriodSeconds"] = bodies.number(query, "gracePeriodSeconds", signed=True)
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "orphanDependents" in query:
        options["orphanDependents"] = truth(query["orphanDependents"])
    return options
