"""What nf_tables refuses is told with the next step."""

from __future__ import annotations

import pytest

from podidentity.kernel.nftables import why_not_permitted


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ("0000000000200004", "give the process CAP_NET_ADMIN"),
        ("0000000000201004", "the process has CAP_NET_ADMIN, and something of the node refuses"),
    ],
)
def test_who_is_refused_is_told_to_take_a_capability_only_if_it_lacks_it(
    held: str, why: str
) -> None:
    status = f"Name:\tnet\nCapPrm:\t000001ffffffffff\nCapEff:\t{held}\nCapBnd:\t{held}\n"
    assert why_not_permitted(status).startswith(why)
