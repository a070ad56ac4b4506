"""The page of the audit log names each field that a record can have, and no other."""

from __future__ import annotations

import re

from podidentity.core.errors import TokenSourceDown, UnprovenCaller
from podidentity.core.resources import ClientId, ObjectRef, TokenRequest
from podidentity.nmi.request.decision import Evidence, TokenQuery
from tests.docs.blocks import ROOT
from tests.fakes import ADDRESS, CLIENT, VAULT, FakeClock, pod
from tests.nmi.outcomes import granted, refused
from tests.nmi.recorded import Recorded
from tests.nmi.test_request_log import REFUSAL

QUERY = TokenQuery(ADDRESS, TokenRequest(resource=VAULT, client_id=ClientId.parse(CLIENT)))
PROVIDER = Evidence(delegated=True, delegate=ObjectRef("kube-system", "provider"))
BEHIND = Evidence(proxy=ObjectRef("istio-system", "ztunnel-x"))
OUTCOMES = (
    granted(observed=REFUSAL, evidence=PROVIDER),
    granted(evidence=BEHIND),
    refused(TokenSourceDown("away"), evidence=Evidence(detail="cni-1")),
    refused(UnprovenCaller("no"), None, claimed=(pod(),), evidence=Evidence(detail="forged")),
)


async def test_each_field_of_a_record_is_on_its_page_and_no_other() -> None:
    recorded = Recorded(FakeClock())
    for outcome in OUTCOMES:
        await recorded.record.token(QUERY, outcome, 200, 0.0)
    named = QUERY._replace(asked_for=ObjectRef("shop", "invented"))
    await recorded.record.token(named, refused(UnprovenCaller("no"), None), 403, 0.0)
    seen = {name for entry in recorded.audit for name in entry}
    page = (ROOT / "docs/reference/audit.md").read_text()
    rows = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    assert seen == {name for row in rows for name in re.findall(r"`(\w+)`", row)}
