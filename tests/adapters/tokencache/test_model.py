"""Twenty thousand things that happen, and no token that is stale, foreign or over."""

from __future__ import annotations

import asyncio

from podidentity.core.errors import NotYetKnown, TokenRefused, TokenSourceDown, TokenThrottled
from tests.adapters.tokencache.modelled import Node

STEPS = 20_000


async def test_whatever_happens_no_token_is_stale_foreign_or_over_and_memory_is_bounded() -> None:
    node = Node(seed=4)
    happens = (
        (node.ask, 50),
        (node.look, 20),
        (node.prepare, 3),
        (node.rotate, 1),
        (node.forget_secret, 1),
        (node.delete_or_create, 1),
        (node.churn, 3),
        (node.advance, 10),
        (node.jump, 1),
        (lambda: node.fail(None), 4),
        (lambda: node.fail(TokenSourceDown("away")), 1),
        (lambda: node.fail(TokenThrottled("slow", retry_after=5)), 1),
        (lambda: node.fail(TokenRefused("no", status=401, error="invalid_client")), 1),
        (lambda: node.fail(NotYetKnown("no", status=400, error="invalid_request")), 1),
        (node.hang_or_answer, 2),
    )
    steps, weights = zip(*happens, strict=True)
    for step in node.chance.choices(steps, weights, k=STEPS):
        step()
        await node.turn()
    node.issuer.answering.set()
    await asyncio.gather(*node.asking)
    await node.cache.close()
    # The node was busy with all of it.
    rare = min(node.seen, key=lambda each: node.seen[each])
    assert node.seen[rare] > 50, node.seen
    assert {"cache", "entra", "shared", "look", "rotate", "delete"} <= node.seen.keys()
    assert {"TokenSourceDown", "TokenThrottled", "TokenRefused", "NotYetKnown"} <= node.seen.keys()
