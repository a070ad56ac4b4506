"""A container's limit of memory, as the kernel enforces it and a kubelet tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.node.site import Site, pod, script, terminated

pytestmark = pytest.mark.net

TAKE = """exec python3 -I -S -c 'held = bytearray({} << 20); print("took it", flush=True)'"""


def limited(text: str, memory: str = "64Mi", **more: Any) -> dict[str, Any]:
    return script(text, resources={"limits": {"memory": memory}}, **more)


@pytest.fixture
def enforced(rooted: Site) -> Site:
    if not rooted.plan.memory_root:
        pytest.skip("no memory cgroup may be written")
    return rooted


def ending(found: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = found["status"]["containerStatuses"][0]["state"]["terminated"]
    return state


@pytest.mark.parametrize(
    ("made", "ended", "wrote"),
    [
        (limited(TAKE.format(200)), ("OOMKilled", 137), ""),
        (limited(TAKE.format(20)), ("Completed", 0), "took it\n"),
        (script(TAKE.format(200)), ("Completed", 0), "took it\n"),
    ],
    ids=["beyond", "within", "without"],
)
def test_a_container_that_takes_more_than_its_limit_is_killed_and_the_reason_said(
    enforced: Site, made: dict[str, Any], ended: tuple[str, int], wrote: str
) -> None:
    found = enforced.run(pod("greedy", made), terminated)
    assert (ending(found)["reason"], ending(found)["exitCode"]) == ended
    assert enforced.log(found) == wrote


def test_a_neighbour_in_the_pod_lives_on(enforced: Site) -> None:
    calm = script("exec sleep infinity", name="calm", resources={"limits": {"memory": "32Mi"}})
    found = enforced.run(pod("two", limited(TAKE.format(200)), calm), terminated)
    states = {each["name"]: each["state"] for each in found["status"]["containerStatuses"]}
    assert states["main"]["terminated"]["reason"] == "OOMKilled"
    assert "running" in states["calm"]


def test_what_is_executed_beside_a_program_counts_against_the_same_limit(enforced: Site) -> None:
    enforced.run(pod("beside", limited("exec sleep infinity")))
    assert enforced.sh("beside", TAKE.format(200)).exit == 137


def test_of_a_container_at_its_limit_v1_ends_one_process_and_v2_all(enforced: Site) -> None:
    # As a kubelet's: memory.oom.group is of cgroup v2.
    text = f"sh -c '{TAKE.format(200).replace(chr(39), chr(34))}'; echo code $?; exit 3"
    found = enforced.run(pod("parent", limited(text.replace('"took it"', "1"))), terminated)
    v2 = enforced.plan.memory_root == enforced.plan.cgroup_root
    assert ending(found)["exitCode"] == (137 if v2 else 3)
    assert ending(found)["reason"] == "OOMKilled"


@pytest.mark.parametrize(("second", "limit"), [("32Mi", 96 << 20), (None, 1 << 60)])
def test_a_pod_is_held_to_the_sum_of_its_containers_limits_if_all_have_one(
    enforced: Site, second: str | None, limit: int
) -> None:
    own = {} if second is None else {"resources": {"limits": {"memory": second}}}
    other = script("exec sleep infinity", name="b", **own)
    found = enforced.run(pod("sum", limited("exec sleep infinity"), other))
    assert pod_limit(enforced, found) == limit


def pod_limit(site: Site, found: dict[str, Any]) -> int:
    folder = next(Path(site.plan.memory_root).rglob(f"pod{found['metadata']['uid']}"))
    v1, v2 = folder / "memory.limit_in_bytes", folder / "memory.max"
    said = (v1 if v1.exists() else v2).read_text().strip()
    return 1 << 60 if said == "max" else min(int(said), 1 << 60)


def test_a_limit_that_is_no_quantity_refuses_the_container(site: Site) -> None:
    site.create(pod("odd", limited("true", memory="much")))
    assert "quantities must match" in site.event("odd", "Failed")
