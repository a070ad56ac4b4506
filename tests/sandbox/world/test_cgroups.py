"""Where cgroup v2 is, by the kernel's own list of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from podidentity_sandbox.world import cgroups
from podidentity_sandbox.world.cgroups import mount_point

ALONE = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0\n"
HYBRID = (
    "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n"
    "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
)
V1_ONLY = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n"
SPACE = "cgroup2 /mnt/my\\040groups cgroup2 rw 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        (ALONE, Path("/sys/fs/cgroup")),
        (HYBRID, Path("/sys/fs/cgroup/unified")),
        (V1_ONLY, None),
        (SPACE, Path("/mnt/my groups")),
        ("", None),
    ],
)
def test_cgroup_v2_is_found_alone_or_beside_v1(mounts: str, found: Path | None) -> None:
    assert mount_point(mounts) == found


def test_sandboxes_of_one_name_in_two_places_have_cgroups_of_their_own() -> None:
    mine, yours = (cgroups.root_of(Path(base) / "one") for base in ("/tmp/a", "/tmp/b"))  # noqa: S108
    assert mine is None or mine != yours
    assert mine == cgroups.root_of(Path("/tmp/a/one"))  # noqa: S108
