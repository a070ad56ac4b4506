"""Names and ids of Kubernetes and Azure, parsed once and compared as their owners compare them.

Azure compares GUIDs and resource ids without case, and returns them in changing case; Kubernetes
compares names exactly. The values of this module compare right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple, Self

GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
"""In lower case."""
OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)
"""Of a Kubernetes object or namespace."""
# Names of a subscription, a resource group or an identity. They become parts of URLs and queries:
# no slash, white space, quote or control character.
_SEGMENT = r"[\w.()-]{1,128}"
_USER_ASSIGNED = re.compile(
    rf"/subscriptions/({_SEGMENT})/resourcegroups/({_SEGMENT})"
    rf"/providers/microsoft\.managedidentity/userassignedidentities/({_SEGMENT})",
    re.IGNORECASE | re.ASCII,
)


class InvalidId(ValueError):
    """The text is no valid id; the message says why."""


class ObjectRef(NamedTuple):
    """The name of a namespaced Kubernetes object; compared exactly."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reference in `NAMESPACE/NAME`; raise InvalidId."""
        namespace, _, name = text.partition("/")
        if not OBJECT_NAME.fullmatch(namespace) or not OBJECT_NAME.fullmatch(name):
            raise InvalidId(f"{text!r} is not NAMESPACE/NAME")
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Guid:
    text: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the id in `text`; raise InvalidId for anything but a GUID."""
        if not isinstance(text, str):
            raise InvalidId(f"must be a GUID in a string, not {type(text).__name__}")
        folded = text.strip().lower()
        if not GUID.fullmatch(folded):
            raise InvalidId(f"must be a GUID, not {_shown(text)}")
        return cls(folded)

    @property
    def redacted(self) -> str:
        """The first and last four characters, enough to recognise it in a log."""
        return f"{self.text[:4]}…{self.text[-4:]}"

    def __str__(self) -> str:
        return self.text


class ClientId(_Guid):
    """The application (client) id of an identity, in lower case."""

    __slots__ = ()


class ObjectId(_Guid):
    """The object (principal) id of an identity, in lower case."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ResourceId:
    """The ARM id of a user-assigned managed identity; compared without case.

    Shape: `/subscriptions/S/resourceGroups/G/providers/Microsoft.ManagedIdentity/`
    `userAssignedIdentities/N`.
    """

    folded: str
    """The whole id in lower case, for comparison."""
    spelling: str = field(compare=False)
    """The id as it was written, for messages and requests to Azure."""
    subscription: str = field(compare=False)
    group: str = field(compare=False)
    name: str = field(compare=False)

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the id in `text`; raise InvalidId for any other ARM id or text."""
        if not isinstance(text, str):
            raise InvalidId(f"must be an ARM id in a string, not {type(text).__name__}")
        found = _USER_ASSIGNED.fullmatch(text.strip())
        if found is None:
            raise InvalidId(
                "must match /subscriptions/<subscription>/resourceGroups/<group>/providers/"
                "Microsoft.ManagedIdentity/userAssignedIdentities/<name>, "
                f"not {_shown(text)}"
            )
        spelling = found.group(0)
        subscription, group, name = found.groups()
        return cls(spelling.lower(), spelling, subscription, group, name)

    def __str__(self) -> str:
        return self.spelling


def _shown(text: str, limit: int = 160) -> str:
    """Return `text` for one line of a message: quoted, escaped, shortened."""
    return repr(text if len(text) <= limit else text[:limit] + "…")
