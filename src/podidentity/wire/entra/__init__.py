"""Entra's token endpoint: what is asked, and what its answers and its refusals mean."""

from podidentity.wire.entra.errors import StaleAssertion
from podidentity.wire.entra.exchange import (
    LONGEST_ANSWER,
    Client,
    ClientCredential,
    parse_answer,
    render_request,
)

__all__ = [
    "LONGEST_ANSWER",
    "Client",
    "ClientCredential",
    "StaleAssertion",
    "parse_answer",
    "render_request",
]
