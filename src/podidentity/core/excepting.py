"""Pods that are answered by the node's own metadata service, within a list of identities.

An AzurePodIdentityException takes a pod out of pod identity: it may use what is on the node. Who
may create one in his namespace must not get that, so it has effect in the operator's namespaces
only, and a pod must carry all of its labels.

https://azure.github.io/aad-pod-identity/docs/configure/application_exception/
"""

from __future__ import annotations

from collections.abc import Sequence

from podidentity.core.ids import ClientId, ResourceId
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    AzureIdentity,
    AzurePodIdentityException,
    IdentityType,
    Pod,
)
from podidentity.core.tokens import TokenRequest
from podidentity.core.usability import Rules


def excepting(
    pod: Pod, exceptions: Sequence[AzurePodIdentityException], rules: Rules
) -> AzurePodIdentityException | None:
    """Return the exception that has effect on `pod`, the first by name, if there is one."""
    if not exceptions or not _allowed(pod.ref.namespace, rules):
        return None
    return _matching(pod, exceptions, rules)


def _allowed(namespace: str, rules: Rules) -> bool:
    return rules.exception_namespaces is None or namespace in rules.exception_namespaces


def ignored(
    pod: Pod, exceptions: Sequence[AzurePodIdentityException], rules: Rules
) -> Refusal | None:
    """Return the refusal of a pod that relies on an exception without effect, if it does."""
    found = _matching(pod, exceptions, rules)
    return None if found is None else _without_effect(found, rules)


def _without_effect(found: AzurePodIdentityException, rules: Rules) -> Refusal:
    namespaces = sorted({*(rules.exception_namespaces or ()), found.ref.namespace})
    return Refusal(
        reason=Reason.EXCEPTION_IGNORED,
        message=f"AzurePodIdentityException {found.ref} has no effect in its namespace.",
        next_step="Bind an identity to the pod, or have the operator start NMI with "
        f"--exception-namespaces={','.join(namespaces)}.",
        about=found.ref,
        told="Identity not found",
    )


def _matching(
    pod: Pod, exceptions: Sequence[AzurePodIdentityException], rules: Rules
) -> AzurePodIdentityException | None:
    fits = _any if rules.any_label else _all
    return next((each for each in sorted(exceptions, key=_name) if fits(pod, each)), None)


def _name(exception: AzurePodIdentityException) -> str:
    return exception.ref.name


def _all(pod: Pod, exception: AzurePodIdentityException) -> bool:
    wanted = exception.pod_labels
    return bool(wanted) and all(pod.labels.get(key) == value for key, value in wanted.items())


def _any(pod: Pod, exception: AzurePodIdentityException) -> bool:
    """As the archived project: one key with an equal value, whatever its case."""
    labels = pod.labels
    return any(
        key in labels and labels[key].lower() == value.lower()
        for key, value in exception.pod_labels.items()
    )


def identity_of_the_node(
    pod: Pod, exception: AzurePodIdentityException, request: TokenRequest
) -> AzureIdentity | Refusal:
    """Return the identity that an excepted pod asked for, or why the exception withholds it.

    Without a list it is whatever is asked for; asked for nothing, whatever IMDS takes for the
    node's own. With a list it is one of these; asked for nothing, the first.
    """
    listed = exception.identities
    asked = request.asked
    if asked is None and listed:
        asked = listed[0]
    if listed and asked not in listed:
        return Refusal(
            reason=Reason.NOT_AMONG,
            message=f"AzurePodIdentityException {exception.ref} does not let pod {pod.ref} use "
            f"{asked}. It may use: {', '.join(str(each) for each in listed)}.",
            next_step="Ask for one of these, or add it to spec.azureIdentities.",
            about=exception.ref,
        )
    return AzureIdentity(
        ref=exception.ref,
        type=IdentityType.USER_ASSIGNED,
        client_id=asked if isinstance(asked, ClientId) else None,
        resource_id=asked if isinstance(asked, ResourceId) else None,
        object_id=request.object_id,
        system_assigned=asked is None,
    )
