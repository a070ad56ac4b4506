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


class Duration(click.ParamType[float]):
    """`90`, `120s` or `2m`, in seconds."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        try:
            return value if isinstance(value, float) else parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Parsed(click.ParamType[Any]):
    """What `parse` makes of a text; its ValueError is a usage error."""

    name = "text"

    def __init__(self, parse: Callable[[str], Any], choices: tuple[str, ...] = ()) -> None:
        self._parse = parse
        self._choices = click.Choice(choices, case_sensitive=False) if choices else None

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # noqa: ANN401 - as `parse` makes it
        """Return the parsed value; a default needs no parsing."""
        if not isinstance(value, str):
            return value
        chosen = self._choices.convert(value, param, ctx) if self._choices else value
        try:
            return self._parse(chosen)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return the choices in click's form."""
        return self._choices.get_metavar(param, ctx) if self._choices else None


class ResourceIdType(click.ParamType[ResourceId]):
    """The ARM id of a user-assigned managed identity."""

    name = "id"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> ResourceId:
        """Return the id."""
        try:
            return ResourceId.parse(value)
        except InvalidId as error:
            self.fail(str(error), param, ctx)


class ClientIdType(click.ParamType[ClientId]):
    """A client id."""

    name = "guid"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> ClientId:
        """Return the id."""
        try:
            return ClientId.parse(value)
        except InvalidId as error:
            self.fail(str(error), param, ctx)


class TenantType(click.ParamType[Tenant]):
    """The id or a domain name of a tenant."""

    name = "guid|domain"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> Tenant:
        """Return the tenant."""
        try:
            return Tenant.parse(value)
        except InvalidId as error:
            self.fail(str(error), param, ctx)


class Permission(click.ParamType[str]):
    """The name of the permission to use an identity, as in `core.decision`."""

    name = "client id|resource id|system-assigned"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        text = value.strip()
        if text.lower() == SYSTEM_ASSIGNED:
            return SYSTEM_ASSIGNED
        try:
            return ResourceId.parse(text).folded if "/" in text else str(ClientId.parse(text))
        except InvalidId as error:
            self.fail(str(error), param, ctx)


class ClientOrResourceId(click.ParamType[ClientId | ResourceId]):
    """A client id, or the ARM id of a user-assigned managed identity."""

    name = "client id|resource id"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> ClientId | ResourceId:
        """Return the id."""
        try:
            return ResourceId.parse(value) if "/" in value else ClientId.parse(value)
        except InvalidId as error:
            self.fail(str(error), param, ctx)


class Label(click.ParamType[tuple[str, str]]):
    """`KEY=VALUE`, as a pod has it.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
    """

    name = "key=value"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return key and value."""
        found = _LABEL_AND_VALUE.fullmatch(value)
        if found is None or max(map(len, found.group("key", "value"))) > _LONGEST_LABEL:
            self.fail(f"{value!r} is no label: KEY=VALUE, as in a pod's metadata", param, ctx)
        return f"{found['prefix']}{found['key']}", found["value"]


class Selector(click.ParamType[str]):
    """A valid value of a pod's label, but not empty.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
    """

    name = "selector"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the selector."""
        if len(value) > _LONGEST_LABEL or not _LABEL.fullmatch(value):
            self.fail(
                f"{value!r} cannot be a label's value: 1 to {_LONGEST_LABEL} letters, digits, "
                "'-', '_' or '.', with a letter or digit at both ends",
                param,
                ctx,
            )
        return value


class Name(click.ParamType[str]):
    """The name of a Kubernetes object or namespace."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        if not OBJECT_NAME.fullmatch(value):
            self.fail(
                f"{value!r} cannot be a name: lower-case letters, digits, '-' or '.', with a "
                "letter or digit at both ends",
                param,
                ctx,
            )
        return value


class Toleration(click.ParamType[dict[str, str]]):
    """`KEY`, `KEY=VALUE`, `KEY:EFFECT` or `KEY=VALUE:EFFECT`: the taint that is tolerated.

    https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """

    name = "taint"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, str]:
        """Return the toleration, as a pod has it."""
        found = _TAINT.fullmatch(value)
        if found is None:
            self.fail(
                f"{value!r} is no taint: KEY, KEY=VALUE, KEY:EFFECT or KEY=VALUE:EFFECT, with "
                f"the effect {', '.join(_EFFECTS)}",
                param,
                ctx,
            )
        key, of, effect = found["key"], found["value"], found["effect"]
        how = {"operator": "Exists"} if of is None else {"value": of}
        return {"key": key, **how, **({"effect": effect} if effect else {})}


def shown_toleration(toleration: Mapping[str, str]) -> str:
    """Return a toleration as people write its taint."""
    value = "" if toleration.get("operator") == "Exists" else f"={toleration.get('value', '')}"
    effect = toleration.get("effect", "")
    return f"{toleration['key']}{value}{f':{effect}' if effect else ''}"


class NodeLabel(click.ParamType[tuple[str, str | None]]):
    """`KEY=VALUE`: a label that nodes must have; `KEY-`: they need not have it any more.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
    """

    name = "label"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str | None]:
        """Return key and value; the value None takes the key out."""
        if found := _NODE_LABEL.fullmatch(value):
            return found["key"], None if found["gone"] else found["value"]
        return self.fail(f"{value!r} is no label: KEY=VALUE, or KEY- without it", param, ctx)


def namespace_option(
    text: str,
    name: str = "namespace",
    **more: Any,  # noqa: ANN401 - click's
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option -n, given to the command as `name`; `text` is its help, `more` click's."""
    return click.option(
        "-n",
        "--namespace",
        name,
        type=Name(),
        shell_complete=completing.namespaces,
        help=text,
        **more,
    )


identity_option = click.option(
    "--name",
    type=Name(),
    required=True,
    shell_complete=completing.identities,
    help="Name of the AzureIdentity.",
)


agents_option = click.option(
    "--namespace",
    "agents",
    type=Name(),
    metavar="NAME",
    shell_complete=completing.namespaces,
    help="Namespace of NMI. [default: where it is]",
)


timeout_option = click.option(
    "--timeout",
    type=Duration(),
    default="15m",
    show_default=True,
    help="How long to wait for a change of a machine. Azure goes on with it, and so does the "
    "command when it is run again.",
)


class PodRef(click.ParamType[ObjectRef]):
    """`NAMESPACE/NAME` of a pod, or of another object."""

    name = "namespace/name"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> ObjectRef:
        """Return the reference."""
        try:
            return ObjectRef.parse(value)
        except InvalidId as error:
            self.fail(f"{error}, such as default/web", param, ctx)


def cloud_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a cloud to `command`, which gets `cloud`; None without an option."""

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
    """Return the cloud of that name, in any case; raise click.UsageError."""
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
