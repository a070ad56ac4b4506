"""Ids of Azure for tests that do not ask Azure: nothing of that name exists."""

from __future__ import annotations

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000001"
IDENTITY = (
    f"{SUBSCRIPTION}/resourcegroups/shop/providers/Microsoft.ManagedIdentity"
    "/userAssignedIdentities/orders"
)
SCALE_SET = (
    f"{SUBSCRIPTION}/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool"
)
CLIENT = "11111111-1111-1111-1111-111111111111"
