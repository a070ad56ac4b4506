"""Tokens, cached while they are good; a core.ports.TokenSource in front of an issuer."""

from podidentity.adapters.tokencache.cache import TokenCache
from podidentity.adapters.tokencache.entries import CacheEntry

__all__ = ["CacheEntry", "TokenCache"]
