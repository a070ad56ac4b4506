"""How much memory and reading time the objects of one tenant may take from everybody else.

A tenant may store gigabytes of objects, and every NMI and MIC reads them all. So an object and a
namespace have a budget for each kind. An object over its budget, and the youngest objects of a
namespace over its budget, are left out: NMI, MIC and the commands use the same others. Whether an
object is left out depends on the stored objects alone, never on the order in which they are read.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of one kind."""

    object: int
    """Bytes of JSON in the part that is decoded: of a pod its labels, else spec and status."""
    namespace: int
    """Bytes of memory for what is kept of all objects of a namespace, by `kept_bytes`."""


BUDGETS = {
    "Pod": Budget(8 * KIB, 24 * MIB),
    "AzureIdentity": Budget(64 * KIB, 4 * MIB),
    "AzureIdentityBinding": Budget(64 * KIB, 4 * MIB),
    "AzurePodIdentityException": Budget(64 * KIB, MIB),
    "AzureAssignedIdentity": Budget(64 * KIB, 12 * MIB),
    "ServiceAccount": Budget(256 * KIB, 2 * MIB),
    "Secret": Budget(256 * KIB, 2 * MIB),
}
"""By kind. 5,000 pods, or 2,000 identities with their bindings, fit into one namespace."""
