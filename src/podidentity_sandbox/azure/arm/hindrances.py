"""What the weather does to a call that ARM would allow: throttling, errors, locks, denials.

Words: https://github.com/MicrosoftDocs/azure-docs/issues/105248 (SubscriptionRequestsThrottled),
https://learn.microsoft.com/troubleshoot/azure/virtual-machines/troubleshooting-throttling-errors
(of compute, whose answer has no envelope), reports of ScopeLocked, and the deny assignment by which
AKS locks a node group down (https://learn.microsoft.com/azure/aks/node-resource-group-lockdown).
Those of 500 and 503 are from memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError
from podidentity_sandbox.azure.faults import answered
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.plan import stable_guid
from podidentity_sandbox.weather import Blow, Effect

_READS = {"GET", "HEAD"}
_LOCKDOWN = (
    "node resource group deny assignment created by Azure Kubernetes Services for nrg-lockdown,"
    " see: https://aka.ms/aks/nrg_lockdown"
)
_WORDS = {
    500: ("InternalServerError", "Encountered internal server error."),
    503: ("ServiceUnavailable", "The service is temporarily unavailable. Please retry later."),
    504: (
        "GatewayTimeout",
        "The gateway did not receive a response from 'Microsoft.Compute' within the specified time"
        " period.",
    ),
}


def hindered(call: ArmCall, action: str, answer: Callable[[ArmCall], Reply]) -> Reply:
    """Return the answer to a call, by `answer` or by the weather; raise ArmError or Reset.

    `action` is the one that the route needs, such as Microsoft.Compute/…/write; "" for none.
    """
    method = call.request.method
    kind = f"{method} {call.request.path.rstrip('/').split('/')[-2]}"
    blow = call.world.weather.blow(
        "arm", kind, writes=method not in _READS, about=call.request.path
    )
    if blow is None:
        return answer(call)
    group = call.params.get("group")
    scope = f"{call.subscription}/resourceGroups/{group}" if group else call.subscription
    match blow.effect:
        case Effect.HANG:
            return Reply(after=math.inf)
        case Effect.SLOW:
            reply = answer(call)
            return replace(reply, after=reply.after + blow.seconds)
        case Effect.LOCKED:
            what = "delete" if method == "DELETE" else "write"
            raise ArmError(
                409,
                "ScopeLocked",
                f"The scope '{call.id}' cannot perform {what} operation because following scope(s)"
                f" are locked: '{scope}'. Please remove the lock and try again.",
            )
        case Effect.DENIED:
            raise ArmError(
                403,
                "DenyAssignmentAuthorizationFailed",
                f"The client '{call.caller.app_id}' with object id '{call.caller.object_id}' has"
                f" permission to perform action '{action}' on scope '{call.id}'; however, the"
                f" access is denied because of the deny assignment with name '{_LOCKDOWN}' and Id"
                f" '{stable_guid(call.world.plan.name, f'lockdown of {scope.lower()}')}' at scope"
                f" '{scope}'.",
            )
    return answered(blow, partial(_refusal, call, blow))


def _refusal(call: ArmCall, blow: Blow, status: int) -> Reply:
    if status != 429:
        return ArmError(status, *_WORDS[status]).reply()
    if "/microsoft.compute/" in call.request.path.lower():
        target = "HighCostGet30Min" if call.request.method in _READS else "PatchVMScaleSet30Min"
        body = {
            "code": "OperationNotAllowed",
            "message": "The server rejected the request because too many requests have been"
            " received for this subscription.",
            "details": [
                {
                    "code": "TooManyRequests",
                    "target": target,
                    "message": json.dumps({"operationGroup": target}),
                }
            ],
        }
        return Reply.json(body, status=429)
    subscription = call.world.plan.subscription_id
    message = (
        f"Number of requests for subscription '{subscription}' exceeded the backend storage limit."
        f" Please try again after '{math.ceil(blow.seconds)}' seconds."
    )
    return ArmError(429, "SubscriptionRequestsThrottled", message).reply()
