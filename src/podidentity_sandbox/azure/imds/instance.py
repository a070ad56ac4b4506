"""The metadata of a virtual machine: /metadata/instance.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#instance-metadata
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.plan import NodePlan, Plan, stable_guid

USER_DATA = "c2FuZGJveC1ub2RlLXVzZXItZGF0YQ=="
"""Base64, as the real one: a machine's start-up script, which pods have no business with."""


def instance(plan: Plan, node: NodePlan) -> dict[str, Any]:
    """Return the whole document of one node."""
    resource_id = node.provider_id.removeprefix("azure://")
    steps = resource_id.split("/")
    scale_set = node.scale_set or (resource_id.rsplit("/", 2)[0] if node.is_instance else "")
    name = scale_set.rpartition("/")[2]
    return {
        "compute": {
            "azEnvironment": "AzurePublicCloud",
            "location": plan.location,
            "name": f"{name}_{steps[-1]}" if node.is_instance else steps[-1],
            "osType": "Linux",
            "provider": "Microsoft.Compute",
            "resourceGroupName": steps[4],
            "resourceId": resource_id,
            "subscriptionId": steps[2],
            "tags": "",
            "tagsList": [],
            "userData": USER_DATA,
            "vmId": stable_guid(plan.name, f"vm {node.name}"),
            "vmScaleSetName": name,
            "virtualMachineScaleSet": {"id": scale_set},
            "vmSize": "Standard_D2s_v5",
            "zone": "",
        },
        "network": {
            "interface": [
                {
                    "ipv4": {
                        "ipAddress": [{"privateIpAddress": node.address, "publicIpAddress": ""}],
                        "subnet": [{"address": "10.240.0.0", "prefix": "24"}],
                    },
                    "ipv6": {"ipAddress": []},
                    "macAddress": f"6045BD0000{node.index:02X}",
                }
            ]
        },
    }
