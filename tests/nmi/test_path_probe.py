"""A probe of the data path, as the request layer answers it."""

from __future__ import annotations

from podidentity.wire.path_probe import ANSWER, render_request
from tests.nmi.agents import agent

NONCE = "ab" * 16
PROBE = render_request(NONCE).decode()


async def test_the_probe_that_is_expected_gets_its_one_answer_and_leaves_no_record() -> None:
    seen: list[tuple[str, int, str, str]] = []

    def take(*request: str | int) -> bool:
        seen.append(request)  # type: ignore[arg-type] # as the pipeline gives them
        return True

    async with agent(take_probe=take) as nmi:
        reply = await nmi.ask(PROBE)
        assert (reply.status, reply.body) == (200, ANSWER)
        assert nmi.record.lines == []
        assert nmi.tokens.asked == []
    ((address, port, own, target),) = seen
    assert (address, own) == ("127.0.0.1", "127.0.0.1")
    assert port > 0
    assert target == f"/metadata/versions?probe={NONCE}"


async def test_a_tenant_that_sends_a_probes_request_gets_the_answer_of_any_without_the_header() -> (
    None
):
    async with agent(take_probe=lambda *_: False) as nmi:
        reply = await nmi.ask(PROBE)
        assert (reply.status, reply.json["error"]) == (400, "invalid_request")
        (line,) = nmi.record.lines
    assert line["reason"] == "InvalidRequest"


async def test_the_header_makes_no_token_of_a_probe() -> None:
    async with agent(take_probe=lambda *_: True) as nmi:
        reply = await nmi.ask(PROBE.replace("Connection", "Metadata: true\r\nConnection"))
        assert reply.body == ANSWER
        assert nmi.tokens.asked == []
