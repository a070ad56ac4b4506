"""Long-running operations: how one is begun, where it is asked after, and how it ends.

ARM has two ways to say where: `Azure-AsyncOperation` leads to a document with a status, `Location`
to 202 until the result is there. Compute says both, and tells them apart by `monitor=true`, as
recordings of Azure's SDKs show. An operation that was preempted ends `Canceled`:
https://github.com/Azure/azure-sdk-for-java/issues/1783. The status of a result that failed is from
memory.
https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import Operation
from podidentity_sandbox.weather import PREEMPTED, Outcome

ARM = "https://management.azure.com"


def start(call: ArmCall, *, delay: float, subject: str = "") -> Operation:
    """Begin an operation on the resource of id `subject`, done `delay` seconds from now."""
    operation = Operation(
        id=str(uuid.uuid4()), started_at=call.now, due_at=call.now + delay, subject=subject
    )
    call.world.operations[operation.id] = operation
    return operation


def status_headers(call: ArmCall, operation: Operation, where: str) -> dict[str, str]:
    """Return the headers that lead to the status of `operation`, below the path `where`."""
    url = f"{ARM}{where}/{operation.id}{_version(call)}"
    return {"Azure-AsyncOperation": url, "Retry-After": _after(call, operation)}


def accepted(call: ArmCall, body: object, *, location: str, outcome: Outcome) -> Reply:
    """Return the 202 of compute: where to ask, and in how many seconds."""
    operation = replace(start(call, delay=outcome.seconds), error=outcome.error)
    call.world.operations[operation.id] = operation
    base = f"{call.subscription}/providers/Microsoft.Compute/locations/{location}/operations"
    headers = status_headers(call, operation, base)
    monitored = f"{headers['Azure-AsyncOperation']}&monitor=true"
    return Reply.json(body, status=202, headers={**headers, "Location": monitored})


def accepted_at(call: ArmCall, operation: Operation, where: str) -> Reply:
    """Return a 202 whose Location gives the result, below the path `where`, once it is there."""
    url = f"{ARM}{where}/{operation.id}{_version(call)}"
    headers = {"Location": url, "Retry-After": _after(call, operation)}
    return Reply(status=202, headers=headers)


def get_operation(call: ArmCall) -> Reply:
    """Say how an operation stands; with `monitor=true` by the status alone."""
    if call.request.parameter("monitor") == "true":
        return get_empty_result(call)
    operation = find(call)
    answer: dict[str, Any] = {"startTime": _iso(operation.started_at), "name": operation.id}
    if call.now < operation.due_at:
        waits = {"Retry-After": _after(call, operation)}
        return Reply.json({**answer, "status": "InProgress"}, headers=waits)
    answer["endTime"] = _iso(operation.due_at)
    if operation.error:
        code, message = operation.error
        status = "Canceled" if code == PREEMPTED else "Failed"
        error = {"code": code, "message": message}
        return Reply.json({**answer, "status": status, "error": error})
    return Reply.json({**answer, "status": "Succeeded"})


def get_result(call: ArmCall, render: Callable[[Operation], object]) -> Reply:
    """Return the result of an operation, or 202 while it is under way; raise ArmError."""
    operation = find(call)
    if call.now < operation.due_at:
        where = f"{ARM}{call.request.target}"
        return Reply(
            status=202, headers={"Location": where, "Retry-After": _after(call, operation)}
        )
    if operation.error:
        raise ArmError(409, *operation.error)
    return Reply.json(render(operation))


def get_empty_result(call: ArmCall) -> Reply:
    """Say by the status whether an operation that makes nothing is done."""
    return get_result(call, lambda _: None)


def find(call: ArmCall) -> Operation:
    """Return the operation of the path; raise ArmError."""
    operation = call.world.operations.get(call.params["name"].lower())
    if operation is None:
        message = f"The operation '{call.params['name']}' could not be found."
        raise ArmError(404, "NotFound", message)
    return operation


def _after(call: ArmCall, operation: Operation) -> str:
    left = operation.due_at - call.now
    return str(min(10, max(1, math.ceil(left)))) if math.isfinite(left) else "1"


def _version(call: ArmCall) -> str:
    return f"?api-version={call.request.parameter('api-version')}"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
