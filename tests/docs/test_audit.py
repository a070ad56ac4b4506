"""The page of the audit log names each field that a record can have, and no other."""

from __future__ import annotations

import re
from dataclasses import replace

from podidentity.core.errors import TokenSourceDown, UnprovenCaller
from podidentity.core.ids import ClientId, ObjectRef
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.request.outcome import Asked, Outcome
from podidentity.nmi.server.messages import Caller
from tests.docs.blocks import ROOT
from tests.fakes import ADDRESS, CLIENT, VAULT, FakeClock, pod
from tests.nmi.recorded import Recorded
from tests.nmi.test_record import GIVEN, REFUSAL

ASKED = Asked(
    Caller(ADDRESS, 40_000), TokenRequest(resource=VAULT, client_id=ClientId.parse(CLIENT))
)
OUTCOMES = (
    replace(GIVEN, observed=REFUSAL, delegate=ObjectRef("kube-system", "provider")),
    Outcome(pod=pod(), error=TokenSourceDown("away"), detail="cni-1"),
    Outcome(claimed=(pod(),), error=UnprovenCaller("no"), detail="forged"),
)


def test_each_field_of_a_record_is_on_its_page_and_no_other() -> None:
    recorded = Recorded(FakeClock())
    for outcome in OUTCOMES:
        recorded.record.token(ASKED, outcome, 200, 0.0)
    seen = {name for entry in recorded.audit for name in entry}
    page = (ROOT / "docs/reference/audit.md").read_text()
    rows = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    assert seen == {name for row in rows for name in re.findall(r"`(\w+)`", row)}
