"""Resource types, and those that this server serves.

Verbs know nothing of kinds: whatever is particular about a kind is data in its ResourceType or a
hook in its Strategy. A CustomResourceDefinition adds a ResourceType while the server runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.names import subdomain_faults
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.status import Cause, StatusError, qualified

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Strategy:
    """The hooks of one kind in the generic verbs. They may change the first object only."""

    def default(self, new: Obj) -> None:
        """Set the defaults of the real server's decoder: they count as the client's."""

    def prepare_create(self, new: Obj) -> None:
        """Set the fields that the server decides, and drop those that a client may not set."""

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """Do the same for an object that is there; status is already the old one."""

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Yield the faults of `new`; `old` is None at creation."""
        del new, old
        yield from ()

    def keeps(self, obj: Obj) -> str:
        """Return why an object may not be deleted; "" if it may."""
        del obj
        return ""

    def grace_seconds(self, obj: Obj, asked: int | None) -> int:
        """Return how long the object lives on after its deletion was asked for."""
        del obj, asked
        return 0

    def prepare_deletion(self, new: Obj) -> None:
        """Mark an object whose deletion begins."""

    def holds(self, obj: Obj) -> bool:
        """Whether something besides metadata.finalizers keeps a deleted object alive."""
        del obj
        return False


@dataclass(frozen=True, slots=True, eq=False)
class ResourceType:
    """One served resource: its names, its verbs, and its hooks."""

    group: str
    """"" is the core group."""
    kind: str
    _: KW_ONLY
    plural: str = ""
    """"": the singular with an s."""
    singular: str = ""
    """"": the kind in lower case."""
    version: str = "v1"
    namespaced: bool = True
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    subresources: tuple[str, ...] = ()
    generation: bool = False
    """metadata.generation counts the changes of all but metadata and status."""
    unconditional_update: bool = True
    """An update without resourceVersion is taken."""
    selectable: Mapping[str, str] = field(default_factory=dict)
    """Field selectors besides metadata.name and metadata.namespace: label to path."""
    name_faults: Callable[[str], list[str]] = subdomain_faults
    """The rule of its names, one of `names`."""
    status_at_creation: bool = False
    """A new object may bring its status, though /status writes it later."""
    strategy: Strategy = field(default_factory=Strategy)
    schema: Schema | None = None
    """Only of custom resources: prunes, defaults and validates."""
    columns: Sequence[Obj] = ()
    """Only of custom resources: additionalPrinterColumns of its definition."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "singular", self.singular or self.kind.lower())
        object.__setattr__(self, "plural", self.plural or f"{self.singular}s")

    @property
    def key(self) -> str:
        """Name in storage and in errors: `pods`, `daemonsets.apps`."""
        return qualified(self.plural, self.group)

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        """Whether status is written through /status only."""
        return "status" in self.subresources

    @property
    def custom(self) -> bool:
        """Whether a CustomResourceDefinition made it."""
        return self.schema is not None

    def error(self, make: Callable[..., StatusError], *args: str) -> StatusError:
        """Return `make(plural, group, …)`, one of the constructors of `status`."""
        return make(self.plural, self.group, *args)


class Registry:
    """The types that are served now, by group, version and plural."""

    def __init__(self, types: Sequence[ResourceType] = ()) -> None:
        self._types: dict[tuple[str, str, str], ResourceType] = {}
        for kind in types:
            self.add(kind)

    def add(self, kind: ResourceType) -> None:
        """Serve this type from now on, in place of an earlier one of its name."""
        self._types[kind.group, kind.version, kind.plural] = kind

    def remove(self, kind: ResourceType) -> None:
        self._types.pop((kind.group, kind.version, kind.plural), None)

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        return self._types.get((group, version, plural))

    def by_key(self, key: str) -> ResourceType:
        """Return the type of that storage key; raise KeyError."""
        for kind in self:
            if kind.key == key:
                return kind
        raise KeyError(key)

    def by_kind(self, api_version: str, kind: str) -> ResourceType | None:
        found = (t for t in self if t.api_version == api_version and t.kind == kind)
        return next(found, None)

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(tuple(self._types.values()))

    def group_versions(self) -> list[tuple[str, str]]:
        """Return (group, version) pairs in the order of their registration."""
        return list(dict.fromkeys((kind.group, kind.version) for kind in self))
