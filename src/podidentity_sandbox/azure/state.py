"""The world that all of the sandbox's Azure services share: one tenant, one subscription.

Records are frozen and replaced whole, so a reader never sees half a change. Ids keep the case in
which they were written and are found without regard to it, as in ARM.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from cryptography import x509

from podidentity_sandbox.azure.arm.roles import Role, role_of
from podidentity_sandbox.azure.tenants import tenants_of
from podidentity_sandbox.plan import NodePlan, Plan
from podidentity_sandbox.weather import WeatherInForce

# ---- The directory of a tenant: service principals, app registrations and their credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A service principal: of an application in one tenant, or of a managed identity."""

    object_id: str
    app_id: str
    name: str
    tenant_id: str
    reads_directory: bool = False
    """Whether Graph shows it other principals, and lets it register applications."""

    @classmethod
    def new(cls, name: str, tenant_id: str, app_id: str = "") -> Principal:
        """Make one with ids of its own, or of the application `app_id`."""
        object_id, client_id = str(uuid.uuid4()), app_id or str(uuid.uuid4())
        return cls(object_id=object_id, app_id=client_id, name=name, tenant_id=tenant_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """A password of an application."""

    key_id: str
    name: str
    value: str = field(repr=False)
    starts: float
    """Seconds since 1970."""
    ends: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate of an application: its public half, which is all that Entra has."""

    key_id: str
    name: str
    der: bytes = field(repr=False)
    starts: float
    """Seconds since 1970."""
    ends: float

    @property
    def sha1(self) -> bytes:
        """The thumbprint that the portal shows."""
        return hashlib.sha1(self.der, usedforsecurity=False).digest()

    @property
    def sha256(self) -> bytes:
        """The thumbprint of today's clients."""
        return hashlib.sha256(self.der).digest()

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An app registration; its federated credentials are resources below it."""

    id: str
    """`/applications/OBJECT-ID`: Graph's path to it."""
    object_id: str
    app_id: str
    name: str
    tenant_id: str
    """Its home."""
    multi_tenant: bool = False
    """Whether other tenants may provision it."""
    secrets: tuple[ClientSecret, ...] = ()
    certificates: tuple[ClientCertificate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedCredential:
    """A foreign issuer and subject that may sign in as this application or identity."""

    id: str
    """Below that of the application or the identity."""
    name: str
    issuer: str
    subject: str
    audience: str
    description: str = ""
    since: float = 0.0
    """Seconds since 1970 from which on the sign-in service knows it, as it is now."""


# ---- Resources


class Resource(Protocol):
    """An object with an ARM id."""

    @property
    def id(self) -> str:
        """Its ARM id."""


R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A resource with a place: a group, or what is in one."""

    TYPE: ClassVar[str]
    """As ARM names it in paths and in actions."""
    id: str
    name: str
    location: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def shown(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields as JSON
        """Return its document in ARM: what all resources say, and `more`."""
        head = {"id": self.id, "name": self.name, "type": self.TYPE, "location": self.location}
        return {**head, "tags": dict(self.tags), **more}


L = TypeVar("L", bound=Located)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Located):
    """A resource group."""

    TYPE: ClassVar[str] = "Microsoft.Resources/subscriptions/resourceGroups"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAssignedIdentity(Located):
    """A user-assigned managed identity."""

    TYPE: ClassVar[str] = "Microsoft.ManagedIdentity/userAssignedIdentities"
    client_id: str
    principal_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityBlock:
    """The identities of a scale set."""

    system: Principal | None = None
    user: tuple[UserAssignedIdentity, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines(Located):
    """What identities are attached to: a scale set, or a virtual machine."""

    identity: IdentityBlock
    """The identities that were asked for last."""
    before: IdentityBlock
    """The identities of the machines until `settled_at`."""
    settled_at: float = 0.0
    """Seconds since 1970 at which the last change reaches the machines, or fails."""
    failed: bool = False
    """Whether it fails; the machines then keep what they had."""
    gone_at: float = math.inf
    """Seconds since 1970 at which a deletion that is under way is done."""

    def in_force(self, now: float) -> IdentityBlock:
        return self.identity if now >= self.settled_at and not self.failed else self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSet(Machines):
    """A virtual machine scale set."""

    TYPE: ClassVar[str] = "Microsoft.Compute/virtualMachineScaleSets"
    capacity: int
    flexible: bool = False
    """Whether its machines are virtual machines of their own, each with its own identities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualMachine(Machines):
    """A virtual machine, alone or of a Flexible scale set."""

    TYPE: ClassVar[str] = "Microsoft.Compute/virtualMachines"
    scale_set: str = ""
    """ARM id of that scale set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault(Located):
    """A Key Vault; its secrets are resources below it."""

    TYPE: ClassVar[str] = "Microsoft.KeyVault/vaults"
    sku: Mapping[str, Any]
    policies: tuple[Mapping[str, Any], ...]
    """Access policies as ARM has them: tenantId, objectId, permissions."""
    by_roles: bool = False
    """Whether roles decide about its secrets, and the policies say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedVault:
    """A vault that was deleted and not purged: its name is taken."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageAccount(Located):
    """A storage account; its contents belong to the blob service."""

    TYPE: ClassVar[str] = "Microsoft.Storage/storageAccounts"
    sku: str
    """Such as Standard_LRS."""
    access_tier: str
    https_only: bool
    keys: tuple[str, str] = field(repr=False)
    """key1 and key2, base64 of 64 bytes each."""
    created: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleAssignment:
    """A role given to a principal at a scope."""

    id: str
    name: str
    scope: str
    role_id: str
    """GUID of the role definition."""
    principal_id: str
    since: float = 0.0
    """Seconds since 1970 from which on it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A long-running operation of ARM: it is done when its time has come."""

    id: str
    started_at: float
    due_at: float
    """Infinite while nobody knows."""
    subject: str = ""
    """Id of the resource that it changes."""
    error: tuple[str, str] | None = None
    """Code and message, where it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDefinition:
    """A custom role."""

    id: str
    role: Role


P = TypeVar("P", bound=FederatedCredential | RoleAssignment)
"""What the services of Azure learn of one after the other."""


class World:
    """Everything that exists in the sandbox's Azure."""

    def __init__(
        self,
        plan: Plan,
        clock: Callable[[], float] = time.time,
        weather: WeatherInForce | None = None,
    ) -> None:
        """`weather` is calm unless it is given."""
        self.plan = plan
        self.tenants = tenants_of(plan)
        self.clock = clock
        self.weather = weather or WeatherInForce()
        self.principals: dict[str, Principal] = {}
        """By object id."""
        self.operations: dict[str, Operation] = {}
        self.written: set[str] = set()
        """Ids, in lower case, below which a write is under way."""
        self.features: dict[str, float] = {}
        """When each preview feature, as `NAMESPACE/NAME` in lower case, is registered."""
        self.orders: asyncio.Queue[str] = asyncio.Queue()
        """Operations that wait for AKS to carry them out."""
        self._resources: dict[str, Resource] = {}
        self._lingering: list[tuple[float, Resource]] = []
        """What was removed and still counts, with the time until which it does."""

    @property
    def subscription(self) -> str:
        return f"/subscriptions/{self.plan.subscription_id}"

    def kept(self) -> dict[str, dict[str, Any]]:
        """Return all that a restart must not lose, by its kind; the values are never changed."""
        return {
            "resources": dict(self._resources),
            "principals": dict(self.principals),
            "operations": dict(self.operations),
            "features": dict(self.features),
        }

    def restore(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Be again what `kept` returned."""
        self._resources = dict(kept.get("resources", {}))
        self.principals = dict(kept.get("principals", {}))
        self.operations = dict(kept.get("operations", {}))
        self.features = dict(kept.get("features", {}))

    def put(self, resource: Resource) -> None:
        self._resources[resource.id.lower()] = resource

    def find(self, kind: type[R], resource_id: str) -> R | None:
        """Return the resource of that kind and id, or None."""
        found = self._resources.get(resource_id.lower())
        if found is not None and self._is_gone(found):
            self.remove(resource_id)
            return None
        return found if isinstance(found, kind) else None

    def location_of(self, resource_id: str) -> str:
        """Return the location of the resource, or of the one that it is part of; "" without one."""
        key = resource_id.lower()
        while "/providers/" in key:
            location = getattr(self._resources.get(key), "location", "")
            if location:
                return str(location)
            key = key.rpartition("/")[0]
        return ""

    def all(self, kind: type[R], below: str = "") -> list[R]:
        """Return the resources of that kind below the id `below`, in order of making."""
        prefix = f"{below.lower()}/"
        return [
            resource
            for key, resource in self._resources.items()
            if isinstance(resource, kind)
            and (not below or key.startswith(prefix))
            and not self._is_gone(resource)
        ]

    def _is_gone(self, resource: Resource) -> bool:
        return isinstance(resource, Machines) and resource.gone_at <= self.clock()

    def counting(self, kind: type[P], below: str = "") -> list[P]:
        """Return what counts by now: not what is too new, but what was removed just now."""
        now, prefix = self.clock(), f"{below.lower()}/"
        self._lingering = [(until, one) for until, one in self._lingering if now < until]
        removed: list[P] = [
            one
            for _, one in self._lingering
            if isinstance(one, kind) and (not below or one.id.lower().startswith(prefix))
        ]
        return [one for one in (*self.all(kind, below), *removed) if one.since <= now]

    def remove(self, resource_id: str) -> None:
        """Remove the resource of that id, with all below it, and the principals of identities.

        What takes time to be known takes time to be forgotten. The name of a vault stays taken,
        since nobody here recovers or purges it.
        """
        key = resource_id.lower()
        gone = [k for k in self._resources if k == key or k.startswith(f"{key}/")]
        for resource in [self._resources.pop(k) for k in gone]:
            if isinstance(resource, UserAssignedIdentity):
                self.principals.pop(resource.principal_id, None)
            if isinstance(resource, Machines) and resource.identity.system:
                self.principals.pop(resource.identity.system.object_id, None)
            if isinstance(resource, Vault):
                place = f"{'/'.join(resource.id.split('/')[:3])}/providers/Microsoft.KeyVault"
                where = f"{place}/locations/{resource.location}/deletedVaults/{resource.name}"
                self.put(DeletedVault(id=where, name=resource.name))
            if isinstance(resource, RoleAssignment | FederatedCredential):
                word = "roles" if isinstance(resource, RoleAssignment) else "credentials"
                until = self.clock() + self.weather.seconds(f"removed-{word}")
                self._lingering.append((until, resource))

    def role(self, role_id: str) -> Role | None:
        custom = self.all(RoleDefinition)
        found = (each.role for each in custom if each.role.id == role_id.lower())
        return role_of(role_id) or next(found, None)

    def machines_of(self, node: NodePlan) -> Machines | None:
        """Return what the identities of a node are attached to, until it is deleted."""
        machine = node.provider_id.removeprefix("azure://")
        scale_set = machine.rpartition("/virtualMachines/")[0]
        return self.find(VirtualMachine, machine) or self.find(ScaleSet, scale_set)

    def vault(self, name: str) -> Vault | None:
        """Return the vault of that name: names are unique in all of Azure."""
        return next((v for v in self.all(Vault) if v.name.lower() == name.lower()), None)

    def account(self, name: str) -> StorageAccount | None:
        """Return the storage account of that name: names are unique in all of Azure."""
        return next((a for a in self.all(StorageAccount) if a.name == name.lower()), None)

    def application(self, app_id: str) -> Application | None:
        """Return the app registration of that client id, in whichever tenant it is at home."""
        return next((a for a in self.all(Application) if a.app_id == app_id.lower()), None)

    def principal_of(self, app_id: str, tenant_id: str) -> Principal | None:
        """Return the service principal that a client id has in a tenant."""
        wanted = (app_id.lower(), tenant_id)
        found = self.principals.values()
        return next((p for p in found if (p.app_id, p.tenant_id) == wanted), None)

    def new_principal(self, name: str) -> Principal:
        principal = Principal.new(name, self.plan.tenant_id)
        self.principals[principal.object_id] = principal
        return principal
