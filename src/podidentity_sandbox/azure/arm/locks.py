"""Locks: what nobody changes or deletes until the lock is gone, whatever roles he has.

https://learn.microsoft.com/azure/azure-resource-manager/management/lock-resources,
https://learn.microsoft.com/rest/api/resources/management-locks
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import Lock

KIND = "Microsoft.Authorization/locks"
_LEVELS = ("CanNotDelete", "ReadOnly")
_READS = ("GET", "HEAD")


def check(call: ArmCall) -> None:
    """Raise ArmError where a lock hinders the call; locks themselves are never locked."""
    method = call.request.method
    if method in _READS or f"/{KIND.lower()}/" in call.request.path.lower():
        return
    found = [lock for lock in call.world.all(Lock) if lock.hinders(method, call.id)]
    if found:
        raise locked(call, (lock.scope for lock in found))


def locked(call: ArmCall, scopes: Iterable[str]) -> ArmError:
    """Return the refusal of a call because of locks at these scopes."""
    what = "delete" if call.request.method == "DELETE" else "write"
    named = ",".join(dict.fromkeys(scopes))
    return ArmError(
        409,
        "ScopeLocked",
        f"The scope '{call.id}' cannot perform {what} operation because following scope(s) are"
        f" locked: '{named}'. Please remove the lock and try again.",
    )


# ---- The routes


def list_locks(call: ArmCall) -> Reply:
    """List the locks that hold at the scope, and those below it."""
    return Reply.json({"value": [_json(lock) for lock in call.around(Lock)]})


def get_lock(call: ArmCall) -> Reply:
    """Return a lock."""
    found = call.world.find(Lock, call.id)
    if found is None:
        message = f"The lock '{call.params['name']}' could not be found."
        raise ArmError(404, "LockNotFound", message)
    return Reply.json(_json(found))


def put_lock(call: ArmCall) -> Reply:
    """Make a lock, or change its level."""
    properties = call.body().get("properties") or {}
    level = properties.get("level")
    if level not in _LEVELS:
        message = f"The lock level '{level}' is not valid. Valid levels are '{','.join(_LEVELS)}'."
        raise ArmError(400, "LockLevelNotValid", message)
    old = call.world.find(Lock, call.id)
    new = Lock(
        id=old.id if old else call.id,
        name=old.name if old else call.params["name"],
        scope=old.scope if old else call.params["scope"],
        level=level,
        notes=str(properties.get("notes", "")),
    )
    call.world.put(new)
    return Reply.json(_json(new), status=200 if old else 201)


def delete_lock(call: ArmCall) -> Reply:
    """Take a lock away."""
    if call.world.find(Lock, call.id) is None:
        return Reply(status=204)
    call.world.remove(call.id)
    return Reply(status=200)


def _json(lock: Lock) -> dict[str, Any]:
    notes = {"notes": lock.notes} if lock.notes else {}
    return {
        "id": lock.id,
        "name": lock.name,
        "type": KIND,
        "properties": {"level": lock.level, **notes},
    }
