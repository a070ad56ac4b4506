"""A container's environment variables and arguments, as the kubelet makes them.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from podidentity_sandbox.node import references
from podidentity_sandbox.node.fields import field_value
from podidentity_sandbox.node.quantities import resource_field
from podidentity_sandbox.node.references import Found
from podidentity_sandbox.node.refusals import ContainerRefused
from podidentity_sandbox.node.spec import ContainerSpec

_REFERENCE = re.compile(r"\$(\$|\([^)]*\))?")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` that is known; `$$` is one dollar, and an unknown name stays."""

    def replace(match: re.Match[str]) -> str:
        what = match[1]
        if what is None:
            return "$"
        if what == "$":
            return "$"
        return variables.get(what[1:-1], match[0])

    return _REFERENCE.sub(replace, text)


def variables(
    container: ContainerSpec,
    fields: Mapping[str, str],
    given: Mapping[str, str],
    *,
    namespace: str,
    found: Found,
) -> dict[str, str]:
    """Return `given`, then the container's `envFrom` and `env`; each may refer to those before it.

    `found` is what it names of config maps and secrets. Raises ContainerRefused.
    """
    result = dict(given)
    for source in container.environment_from:
        result |= references.whole(source, found)
    for entry in container.environment:
        text: str | None = expand(entry.get("value") or "", result)
        if origin := entry.get("valueFrom"):
            text = _from(origin, container, fields, namespace, found)
        if text is not None:
            result[entry["name"]] = text
    return result


def _from(
    source: Mapping[str, Any],
    container: ContainerSpec,
    fields: Mapping[str, str],
    namespace: str,
    found: Found,
) -> str | None:
    kind, said = next(iter(source.items()))
    match kind:
        case "fieldRef":
            return _or_refused(lambda: field_value(fields, said["fieldPath"]))
        case "resourceFieldRef":
            return _or_refused(lambda: resource_field(container.resources, said))
        case "configMapKeyRef" | "secretKeyRef":
            return references.value(kind.removesuffix("KeyRef"), said, namespace, found)
        case _:
            why = f"the sandbox does not serve {kind} as a source of variables"
            raise ContainerRefused("CreateContainerConfigError", why)


def _or_refused(value: Callable[[], str]) -> str:
    try:
        return value()
    except ValueError as error:
        raise ContainerRefused("CreateContainerConfigError", str(error)) from error
