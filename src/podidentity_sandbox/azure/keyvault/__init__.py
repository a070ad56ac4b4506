"""The data plane of Key Vault: secrets, for callers with a valid token and an access policy.

Reading order: `secrets`, then `service`, which has the table of operations and is the front. https://learn.microsoft.com/rest/api/keyvault/secrets
"""

from podidentity_sandbox.azure.keyvault.service import SUFFIX, KeyVault

__all__ = ["SUFFIX", "KeyVault"]
