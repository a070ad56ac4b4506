from __future__ import annotations

import pytest

from podidentity.kernel.namespaces import is_propagated

ROOT = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
PRIVATE = "90 22 0:50 /netns /run/netns rw,relatime - tmpfs tmpfs rw"
SLAVE = "90 22 0:50 /netns /run/netns rw,relatime master:407 - tmpfs tmpfs rw"
SHARED = "90 22 0:50 / /run rw,relatime shared:9 - tmpfs tmpfs rw"
OTHER = "91 22 0:51 / /run/netnsx rw,relatime - tmpfs tmpfs rw"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([ROOT, PRIVATE], False),
        ([ROOT, SLAVE], True),
        ([ROOT, SHARED], True),
        ([ROOT, SHARED, PRIVATE], False),
        ([ROOT, PRIVATE, SHARED], False),
        ([ROOT, PRIVATE, SLAVE], True),
        ([ROOT, SLAVE, OTHER], True),
        ([ROOT.replace("shared:1 ", "unbindable "), OTHER], False),
        ([], False),
    ],
)
def test_a_folder_gets_the_mounts_of_elsewhere_if_its_own_mount_is_shared_or_a_slave(
    lines: list[str], *, expected: bool
) -> None:
    assert is_propagated("\n".join(lines), "/run/netns") is expected


def test_a_space_in_a_path_is_written_as_a_number() -> None:
    line = SLAVE.replace("/run/netns", "/run/net\\040ns")
    assert is_propagated(line, "/run/net ns")
