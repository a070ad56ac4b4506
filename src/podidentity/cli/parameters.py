"""Values and options that several commands take, checked before a command does anything."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from podidentity.cli import completing
from podidentity.core.authorities import CLOUDS, STACK, Cloud
from podidentity.core.flag_values import parse_duration
from podidentity.core.resources import (
    OBJECT_NAME,
    SYSTEM_ASSIGNED,
    ClientId,
    InvalidId,
    ObjectRef,
    ResourceId,
    Tenant,
)

_LONGEST_LABEL = 63
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)
_LABEL_AND_VALUE = re.compile(
    rf"(?P<prefix>[a-z0-9.-]+/|)(?P<key>{_LABEL.pattern})=(?P<value>(?:{_LABEL.pattern})|)",
    re.ASCII,
)
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_TAINT = re.compile(
    rf"(?P<key>(?:[a-z0-9.-]+/)?{_LABEL.pattern})(?:=(?P<value>(?:{_LABEL.pattern})?))?"
    rf"(?::(?P<effect>{'|'.join(_EFFECTS)}))?",
    re.ASCII,
)
_NODE_LABEL = re.compile(
    rf"(?P<key>(?:[a-z0-9.-]+/)?{_LABEL.pattern})(?:=(?P<value>(?:{_LABEL.pattern})?)|(?P<gone>-))",
    re.ASCII,
)


class Parsed(click.ParamType[Any]):
    """What `parse` makes of a text; its ValueError is a usage error."""

    def __init__(
        self, parse: Callable[[str], Any], choices: tuple[str, ...] = (), name: str = "text"
    ) -> None:
        self.name = name
        self._parse = parse
        self._choices = click.Choice(choices, case_sensitive=False) if choices else None

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # noqa: ANN401 - as `parse` makes it
        if not isinstance(value, str):
            return value
        chosen = self._choices.convert(value, param, ctx) if self._choices else value
        try:
            return self._parse(chosen)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self._choices.get_metavar(param, ctx) if self._choices else None


def _permission(text: str) -> str:
    text = text.strip()
    if text.lower() == SYSTEM_ASSIGNED:
        return SYSTEM_ASSIGNED
    return ResourceId.parse(text).folded if "/" in text else str(ClientId.parse(text))


def _label(text: str) -> tuple[str, str]:
    found = _LABEL_AND_VALUE.fullmatch(text)
    if found is None or max(map(len, found.group("key", "value"))) > _LONGEST_LABEL:
        raise ValueError(f"{text!r} is no label: KEY=VALUE, as in a pod's metadata")
    return f"{found['prefix']}{found['key']}", found["value"]


def _selector(text: str) -> str:
    if len(text) > _LONGEST_LABEL or not _LABEL.fullmatch(text):
        raise ValueError(
            f"{text!r} cannot be a label's value: 1 to {_LONGEST_LABEL} letters, digits, "
            "'-', '_' or '.', with a letter or digit at both ends"
        )
    return text


def _name(text: str) -> str:
    if not OBJECT_NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} cannot be a name: lower-case letters, digits, '-' or '.', with a "
            "letter or digit at both ends"
        )
    return text


def _toleration(text: str) -> dict[str, str]:
    found = _TAINT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no taint: KEY, KEY=VALUE, KEY:EFFECT or KEY=VALUE:EFFECT, with "
            f"the effect {', '.join(_EFFECTS)}"
        )
    key, of, effect = found["key"], found["value"], found["effect"]
    how = {"operator": "Exists"} if of is None else {"value": of}
    return {"key": key, **how, **({"effect": effect} if effect else {})}


def _node_label(text: str) -> tuple[str, str | None]:
    """Return key and value; the value None takes the key out."""
    found = _NODE_LABEL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no label: KEY=VALUE, or KEY- without it")
    return found["key"], None if found["gone"] else found["value"]


def _pod(text: str) -> ObjectRef:
    try:
        return ObjectRef.parse(text)
    except InvalidId as error:
        raise ValueError(f"{error}, such as default/web") from error


DURATION = Parsed(parse_duration, name="duration")
"""`90`, `120s` or `2m`, in seconds."""
RESOURCE_ID = Parsed(ResourceId.parse, name="id")
CLIENT_ID = Parsed(ClientId.parse, name="guid")
TENANT = Parsed(Tenant.parse, name="guid|domain")
PERMISSION = Parsed(_permission, name="client id|resource id|system-assigned")
"""The name of the permission to use an identity, as in `core.decision`."""
CLIENT_OR_RESOURCE_ID = Parsed(
    lambda text: ResourceId.parse(text) if "/" in text else ClientId.parse(text),
    name="client id|resource id",
)
LABEL = Parsed(_label, name="key=value")
"""Of a pod: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"""
SELECTOR = Parsed(_selector, name="selector")
"""A valid value of a pod's label, but not empty."""
NAME = Parsed(_name, name="name")
"""Of a Kubernetes object or namespace."""
TOLERATION = Parsed(_toleration, name="taint")
"""https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
NODE_LABEL = Parsed(_node_label, name="label")
POD = Parsed(_pod, name="namespace/name")
"""A pod, or another object."""


def shown_toleration(toleration: Mapping[str, str]) -> str:
    """Return a toleration as people write its taint."""
    value = "" if toleration.get("operator") == "Exists" else f"={toleration.get('value', '')}"
    effect = toleration.get("effect", "")
    return f"{toleration['key']}{value}{f':{effect}' if effect else ''}"


def namespace_option(
    text: str,
    name: str = "namespace",
    **more: Any,  # noqa: ANN401 - click's
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "-n",
        "--namespace",
        name,
        type=NAME,
        shell_complete=completing.namespaces,
        help=text,
        **more,
    )


identity_option = click.option(
    "--name",
    type=NAME,
    required=True,
    shell_complete=completing.identities,
    help="Name of the AzureIdentity.",
)


agents_option = click.option(
    "--namespace",
    "agents",
    type=NAME,
    metavar="NAME",
    shell_complete=completing.namespaces,
    help="Namespace of NMI. [default: where it is]",
)


timeout_option = click.option(
    "--timeout",
    type=DURATION,
    default="15m",
    show_default=True,
    help="How long to wait for a change of a machine. Azure goes on with it, and so does the "
    "command when it is run again.",
)


def cloud_options(command: Callable[..., None]) -> Callable[..., None]:
    @click.option(
        "--cloud",
        metavar="NAME",
        envvar="AZURE_ENVIRONMENT",
        help="Azure's cloud. [default: NMI's]",
    )
    @click.option(
        "--azure-environment-file",
        "environment_file",
        metavar="PATH",
        envvar="AZURE_ENVIRONMENT_FILEPATH",
        default="",
        help=f"JSON file that describes an Azure Stack Hub, for --cloud={STACK}.",
    )
    @functools.wraps(command)
    def with_cloud(cloud: str | None, environment_file: str, **rest: Any) -> None:  # noqa: ANN401 - click's
        command(cloud=cloud_of(cloud, environment_file) if cloud else None, **rest)

    return with_cloud


def cloud_of(name: str, environment_file: str) -> Cloud:
    folded = name.strip().lower()
    if folded != STACK.lower():
        if folded not in CLOUDS:
            names = ", ".join(sorted({cloud.name for cloud in CLOUDS.values()} | {STACK}))
            raise click.UsageError(f"--cloud must be one of {names}, not {name!r}.")
        return CLOUDS[folded]
    if not environment_file:
        raise click.UsageError(
            f"--cloud={STACK} needs --azure-environment-file (AZURE_ENVIRONMENT_FILEPATH)."
        )
    from podidentity.wire.azure_environment import parse_environment

    try:
        return parse_environment(Path(environment_file).read_bytes())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--azure-environment-file {environment_file}: {error}.") from error
