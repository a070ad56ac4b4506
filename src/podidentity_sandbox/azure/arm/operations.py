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
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import Located, Machines, Operation
from podidentity_sandbox.weather import PREEMPTED, Outcome

ARM = "https://management.azure.com"


def start(call: ArmCall, subject: str, outcome: Outcome) -> Operation:
    operation = Operation(
        id=str(uuid.uuid4()),
        started_at=call.now,
        due_at=call.now + outcome.seconds,
        subject=subject,
        error=outcome.error,
    )
    call.world.operations[operation.id] = operation
    return operation


def status_headers(call: ArmCall, operation: Operation, subject: Located) -> dict[str, str]:
    """Return the headers that lead to the status of an operation on that resource."""
    provider = f"{call.subscription}/providers/{subject.TYPE.partition('/')[0]}"
    where = f"{ARM}{provider}/locations/{subject.location}/operations/{operation.id}"
    url = f"{where}?api-version={call.request.parameter('api-version')}"
    return {"Azure-AsyncOperation": url, "Retry-After": _after(call, operation)}


def accepted(call: ArmCall, body: object, machines: Machines, outcome: Outcome) -> Reply:
    """Return the 202 of compute: where to ask, and in how many seconds."""
    headers = status_headers(call, start(call, machines.id, outcome), machines)
    monitored = f"{headers['Azure-AsyncOperation']}&monitor=true"
    return Reply.json(body, status=202, headers={**headers, "Location": monitored})


def get_operation(call: ArmCall) -> Reply:
    """Say how an operation stands; with `monitor=true` by the status alone. Raises ArmError."""
    operation = call.world.operations.get(call.params["name"].lower())
    if operation is None:
        message = f"The operation '{call.params['name']}' could not be found."
        raise ArmError(404, "NotFound", message)
    if call.request.parameter("monitor") == "true":
        return _result(call, operation)
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


def _result(call: ArmCall, operation: Operation) -> Reply:
    if call.now < operation.due_at:
        where = f"{ARM}{call.request.target}"
        return Reply(
            status=202, headers={"Location": where, "Retry-After": _after(call, operation)}
        )
    if operation.error:
        raise ArmError(409, *operation.error)
    return Reply.json(None)


def _after(call: ArmCall, operation: Operation) -> str:
    left = operation.due_at - call.now
    return str(min(10, max(1, math.ceil(left)))) if math.isfinite(left) else "1"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
