"""How the tests of IMDS ask it."""

from __future__ import annotations

import json
from typing import Any

from podidentity_sandbox.azure.messages import Reply, Request
from tests.sandbox.azure.direct import Direct

TOKEN = "/metadata/identity/oauth2/token"
ASK = "api-version=2018-02-01&resource=https://vault.azure.net"
METADATA = {"metadata": "true"}


async def ask(direct: Direct, target: str, **more: Any) -> tuple[Reply, Any]:
    facts = {"method": "GET", "source": "127.0.0.7", "headers": METADATA, **more}
    reply = await direct.imds.handle(Request(target=target, **facts))
    return reply, json.loads(reply.body)
