"""Microsoft Entra ID of the sandbox: the judge of every client that signs in.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""
