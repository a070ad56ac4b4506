"""The node's real Instance Metadata Service: tokens, and the other metadata that is passed on."""

from podidentity.adapters.imds.client import Imds, Metadata
from podidentity.adapters.imds.quota import AT_ONCE, Quota

__all__ = ["AT_ONCE", "Imds", "Metadata", "Quota"]
