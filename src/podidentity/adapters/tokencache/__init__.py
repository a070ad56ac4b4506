"""Tokens kept while they are good; a core.ports.TokenSource in front of whoever issues them."""

from podidentity.adapters.tokencache.cache import TokenCache
from podidentity.adapters.tokencache.kept import Kept

__all__ = ["Kept", "TokenCache"]
