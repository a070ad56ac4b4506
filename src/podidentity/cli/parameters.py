"""Values that commands take, checked before anything is done."""

from __future__ import annotations

import re

import click

from podidentity.core.authorities import Tenant
from podidentity.core.ids import OBJECT_NAME, ClientId, InvalidId, ObjectRef, ResourceId
from podidentity.core.resources import SYSTEM_ASSIGNED
from podidentity.settings import parse_duration

_LONGEST_LABEL = 63
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)


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
    """What the permission to use an identity is named by, as `core.permission` has it."""

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


class Selector(click.ParamType[str]):
    """What a pod can carry as the value of a label, but not empty.

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
            self.fail(str(error), param, ctx)
