from __future__ import annotations

import pytest

from podidentity_sandbox.node.refusals import ContainerRefused
from podidentity_sandbox.node.security import capability_mask, rights

# `grep Cap /proc/self/status` in a container of containerd, nothing asked for.
DEFAULT = 0x00000000A80425FB
NET_ADMIN, NET_RAW, SYS_ADMIN = 1 << 12, 1 << 13, 1 << 21
EVERY = (1 << 41) - 1


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), DEFAULT),
        (("NET_ADMIN",), (), DEFAULT | NET_ADMIN),
        (("CAP_NET_ADMIN",), (), DEFAULT | NET_ADMIN),
        ((), ("NET_RAW",), DEFAULT & ~NET_RAW),
        ((), ("ALL",), 0),
        (("NET_ADMIN", "SYS_ADMIN"), ("ALL",), NET_ADMIN | SYS_ADMIN),
        (("ALL",), (), EVERY),
        (("ALL",), ("SYS_ADMIN",), EVERY & ~SYS_ADMIN),
    ],
)
def test_capabilities_are_the_runtimes_default_with_the_specs_changes(
    add: tuple[str, ...], drop: tuple[str, ...], expected: int
) -> None:
    assert capability_mask(add, drop) == expected


def test_an_unknown_capability_refuses_the_container() -> None:
    with pytest.raises(ContainerRefused, match='unknown capability "MAGIC"'):
        capability_mask(("MAGIC",), ())


def test_a_privileged_container_has_every_capability() -> None:
    assert rights({}, {"privileged": True}).capabilities == EVERY


def test_the_containers_user_wins_over_the_pods() -> None:
    result = rights({"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000}, {"runAsUser": 7})
    assert (result.uid, result.gid, result.groups) == (7, 2000, (3000,))


def test_a_container_that_must_not_be_root_and_would_be_is_refused() -> None:
    with pytest.raises(ContainerRefused, match="image will run as root"):
        rights({"runAsNonRoot": True}, {})
