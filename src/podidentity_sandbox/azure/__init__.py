"""The sandbox's Azure: Entra, ARM, IMDS, Key Vault, Blob, and the DNS and proxy that lead to them.

Reading order: `messages` and `state`, then one module or package for each service (`entra`, `arm`,
`aks`, `graph`, `imds`, `keyvault`, `blob`), each a function from a request to a reply over the one
state; `server`, `dns` and `proxy` bring bytes to them; `main` is the composition.
"""
