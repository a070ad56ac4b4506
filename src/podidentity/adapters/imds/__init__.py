"""The node's Instance Metadata Service: a client, and its rate limit."""

from podidentity.adapters.imds.client import Imds, Metadata
from podidentity.adapters.imds.quota import AT_ONCE, Quota

__all__ = ["AT_ONCE", "Imds", "Metadata", "Quota"]
