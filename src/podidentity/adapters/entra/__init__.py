"""Entra as an issuer of tokens: by secret, by certificate and by federation.

Nothing is imported here: `pkcs12` runs in a process of its own, and needs none of the rest.
"""
