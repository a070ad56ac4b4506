"""What the weather does to requests at a real API server, without one."""

from __future__ import annotations

from podidentity_sandbox.cluster.authentication import User
from podidentity_sandbox.cluster.paths import request_info
from podidentity_sandbox.kubernetes.overload import befall
from podidentity_sandbox.weather import CALM, WeatherInForce, changed

PODS = request_info("GET", "/api/v1/namespaces/default/pods", {})


async def test_principals_of_entra_are_one_kind_so_that_a_seed_replays_what_befalls_them() -> None:
    weather = WeatherInForce()
    fault = "apiserver=[{effect: 429, kind: principal list pods, first: 2}]"
    weather.set(changed(CALM, [fault]))
    principals = [User(f"00000000-0000-4000-8000-00000000000{number}") for number in (1, 2, 3)]
    found = [await befall(weather, each, "kubectl", PODS) for each in principals]
    assert [each is not None for each in found] == [True, True, False]
    weather.set(changed(CALM, [fault]))
    assert await befall(weather, User("admin"), "kubectl", PODS) is None
