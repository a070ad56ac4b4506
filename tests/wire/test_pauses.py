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


def test_it_is_one_config_map_in_the_namespace_of_mic_with_texts_alone() -> None:
    paused = Pauses(all=True, hosts=frozenset({HOST + "2", HOST}))
    assert render_pauses("kube-system", paused) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "podidentity-mic-pauses",
            "namespace": "kube-system",
            "labels": {"app.kubernetes.io/name": "podidentity"},
        },
        "data": {"all": "true", "hosts": f"{HOST}\n{HOST}2\n"},
    }
    assert render_pauses("kube-system", Pauses())["data"] == {"all": "false", "hosts": ""}


def test_without_the_config_map_nothing_is_paused() -> None:
    assert parse_pauses(None) == parse_pauses({}) == parse_pauses({"data": {}}) == Pauses()


@pytest.mark.parametrize("data", [{"all": True}, ["all"], {"all": "yes"}, {"all": "1"}])
def test_whoever_tries_to_pause_it_has_paused_it(data: Any) -> None:
    assert parse_pauses({"data": data}).all


@pytest.mark.parametrize("said", ["", " ", "false", " False\n"])
def test_who_says_that_not_all_is_paused_has_paused_nothing(said: str) -> None:
    assert parse_pauses({"data": {"all": said}}) == Pauses()


def test_people_are_told_what_is_paused_and_how_it_ends() -> None:
    assert str(Pauses()) == "MIC changes Azure where it must."
    every = "MIC changes nothing in Azure until podidentity mic resume."
    assert str(Pauses(all=True)) == str(Pauses(all=True, hosts=frozenset({"/a"}))) == every
    assert str(Pauses(hosts=frozenset({"/b", "/a"}))) == (
        "MIC changes nothing on these, until podidentity mic resume --host: /a, /b."
    )


def test_hosts_are_compared_without_case_and_blank_lines_are_none() -> None:
    found = parse_pauses({"data": {"hosts": f"\n  {HOST.upper()}\n\n"}})
    assert found.hosts == frozenset({HOST})
