"""Where connections to IMDS are led is found without a packet, and told with the next step."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from podidentity.kernel.connecting import problem
from podidentity.kernel.sock_diag import Endpoint

IMDS = Endpoint("169.254.169.254", 80)


@pytest.mark.parametrize(
    ("led", "words"),
    [
        (Endpoint("127.0.0.1", 3080), "turn Azure's Metadata Security Protocol off"),
        (Endpoint("127.0.0.1", 8080), "turn the program off"),
        (Endpoint("10.240.0.4", 2579), "have it leave out NMI's own"),
    ],
    ids=str,
)
def test_who_leads_connections_away_is_named_by_where_it_leads_them(
    led: Endpoint, words: str
) -> None:
    said = problem(IMDS, led)
    assert said.startswith(f"a program of the node leads connections to {IMDS} to {led}")
    assert words in said


def test_connections_that_nobody_leads_away_are_known_by_any_route_without_a_segment() -> None:
    enter = ["unshare", "--user", "--map-root-user", "--net"]
    ran = subprocess.run(
        [*enter, sys.executable, "-m", "tests.kernel.leading"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout)
    assert {kind: led for kind, (led, _) in found.items()} == dict.fromkeys(found)
    sent = {kind: count for kind, (_, count) in found.items() if count}
    assert sent.keys() <= {"on this link", "here"}, "where IMDS is said to be a neighbour"
