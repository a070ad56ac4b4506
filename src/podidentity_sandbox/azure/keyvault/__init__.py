"""The data plane of Key Vault: secrets, for whom a valid token and an access policy let in.

Reading order: `errors`, `store`, `shapes`, `secrets`; `operations` is the table of what is served,
`service` the front. https://learn.microsoft.com/rest/api/keyvault/secrets
"""

from podidentity_sandbox.azure.keyvault.service import SUFFIX, KeyVault

__all__ = ["SUFFIX", "KeyVault"]
