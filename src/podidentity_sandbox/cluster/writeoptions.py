"""What the query of a write says: CreateOptions, UpdateOptions and PatchOptions.

Checked as in
https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/validation/validation.go
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.decoding import Write
from podidentity_sandbox.cluster.status import Cause

MANAGER_LIMIT = 128
"""Bytes of a field manager's name."""
VALIDATIONS = ("Ignore", "Warn", "Strict")
GROUP = "meta.k8s.io"


def write_options(query: Mapping[str, str], agent: str, kind: str, *, apply: bool = False) -> Write:
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
    return [
        status.invalid("fieldManager", name, "should only contain printable characters")
        for odd in [not name.isprintable()]
        if odd
    ]


def _of_agent(agent: str) -> str:
    """Return the manager that a User-Agent stands for: what is before its first slash."""
    name = "".join(filter(str.isprintable, agent.partition("/")[0]))
    return name.encode()[:MANAGER_LIMIT].decode(errors="ignore") or "unknown"


def dry_run_fault(values: Sequence[str]) -> Sequence[Cause]:
    """Return the fault of dryRun, which is All or nothing."""
    if set(values) <= {"All"}:
        return []
    shown = ", ".join(json.dumps(value) for value in values)
    message = f'Unsupported value: []string{{{shown}}}: supported values: "All"'
    return [Cause("dryRun", "FieldValueNotSupported", message)]
