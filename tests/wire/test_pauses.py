from __future__ import annotations

from typing import Any

import pytest

from podidentity.wire.pauses import Pauses, parse_pauses, render_pauses

HOST = "/subscriptions/s/resourcegroups/g/providers/microsoft.compute/virtualmachinescalesets/pool"


@pytest.mark.parametrize(
    "pauses",
    [Pauses(), Pauses(all=True), Pauses(hosts=frozenset({HOST, HOST + "2"}))],
)
def test_what_is_written_is_read(pauses: Pauses) -> None:
    assert parse_pauses(render_pauses("kube-system", pauses)) == pauses


def test_without_the_config_map_nothing_is_paused() -> None:
    assert parse_pauses(None) == parse_pauses({}) == parse_pauses({"data": {}}) == Pauses()


@pytest.mark.parametrize("data", [{"all": True}, ["all"], {"all": "yes"}, {"all": "1"}])
def test_whoever_tries_to_pause_it_has_paused_it(data: Any) -> None:
    assert parse_pauses({"data": data}).all


def test_hosts_are_compared_without_case_and_blank_lines_are_none() -> None:
    found = parse_pauses({"data": {"hosts": f"\n  {HOST.upper()}\n\n"}})
    assert found.hosts == frozenset({HOST})
