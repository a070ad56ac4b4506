"""Where the machine's cgroups are, by the kernel's own list of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from podidentity_sandbox.node.cgroups import mounted
from podidentity_sandbox.world import cgroups
from podidentity_sandbox.world.cgroups import hierarchies

ALONE = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0\n"
HYBRID = (
    "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n"
    "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n"
    "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
)
V1_ONLY = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n"
SPACE = "cgroup2 /mnt/my\\040groups cgroup2 rw 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        (ALONE, (Path("/sys/fs/cgroup"), None)),
        (HYBRID, (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/memory"))),
        (V1_ONLY, (None, None)),
        (SPACE, (Path("/mnt/my groups"), None)),
        ("", (None, None)),
    ],
)
def test_cgroup_v2_is_found_alone_or_beside_v1_with_the_memory_controller(
    mounts: str, found: tuple[Path | None, Path | None]
) -> None:
    assert hierarchies(mounts) == found


def test_each_hierarchy_is_told_with_the_options_that_mount_it_once_more() -> None:
    joined = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n"
    named = "cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,release_agent=/x,name=systemd 0 0\n"
    found = [
        (each.place.name, set(each.controllers.split(","))) for each in mounted(joined + named)
    ]
    assert found == [("cpu,cpuacct", {"cpu", "cpuacct"}), ("systemd", {"none", "name=systemd"})]
    assert [(each.kind, each.controllers) for each in mounted(ALONE)] == [("cgroup2", "")]


def test_sandboxes_of_one_name_in_two_places_have_cgroups_of_their_own() -> None:
    mine, yours = (cgroups.roots_of(Path(base) / "one") for base in ("/tmp/a", "/tmp/b"))  # noqa: S108
    assert not set(mine) & set(yours)
    assert mine == cgroups.roots_of(Path("/tmp/a/one"))  # noqa: S108
