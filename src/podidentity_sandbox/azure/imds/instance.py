"""The metadata of a virtual machine: /metadata/instance and its neighbours.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#instance-metadata
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.azure.imds.rules import ImdsError
from podidentity_sandbox.azure.messages import Reply
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


def read(document: object, path: list[str], form: str) -> Reply:
    """Return the part of `document` at `path` as `json` or `text`; raise ImdsError."""
    value = document
    for step in path:
        value = _child(value, step)
    nested = isinstance(value, dict | list)
    if form == "json" and nested:
        return Reply.json(value)
    if form == "text":
        text = "\n".join(_names(value)) if isinstance(value, dict | list) else str(value)
        return Reply(body=text.encode(), content_type="text/plain; charset=utf-8")
    raise ImdsError(400, "Bad request. Leaf nodes are only returned with format=text")


def _child(value: object, step: str) -> object:
    if isinstance(value, dict):
        for name, child in value.items():
            if name.lower() == step.lower():
                return child
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    raise ImdsError(404, "Not found")


def _names(value: dict[str, Any] | list[Any]) -> list[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [f"{name}/" if isinstance(child, dict | list) else str(name) for name, child in items]
