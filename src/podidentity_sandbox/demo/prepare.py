"""The Azure that the story finds: what its author made with `az` before the first pod.

Steps 4 and 6 of the walk-through, as the same ARM and Key Vault calls that `az` sends, with the
names of the story; a second run repeats them and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Plan

GROUP = "aad-pod-identity-demo"
VAULT = "aad-pod-identity-demo-kv"
OTHER_VAULT = "demo-of-somebody-else-kv"
IDENTITY = "aad-pod-identity-demo-identity"
SECRET, SECRET_VALUE = "aad-pod-identity-demo-secret", "MySuperSecretDemoPassword"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The identity that was made, for the checks of later steps."""

    identity_id: str
    client_id: str


async def prepare(plan: Plan) -> Prepared:
    """Make group, identity, vault with secret and policy, and a vault that grants nothing."""
    async with AzureOperator(plan) as azure:
        await azure.create_group(GROUP)
        identity = await azure.create_identity(GROUP, IDENTITY)
        await azure.create_vault(GROUP, VAULT, readers=[identity["principalId"]])
        await azure.create_vault(GROUP, OTHER_VAULT)
        for vault in (VAULT, OTHER_VAULT):
            await azure.put_secret(vault, SECRET, SECRET_VALUE)
    return Prepared(identity_id=identity["id"], client_id=identity["clientId"].lower())
