from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity.kernel import cgroups
from podidentity.kernel.cgroups import PodCgroups, doubt_of, pod_of
from tests.kernel.topology import pod_cgroups
from tests.root import needs_root

UID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
HASH = "0123456789abcdef0123456789abcdef"

CGROUP = "/sys/fs/cgroup"
SLICE = f"{CGROUP}/kubepods.slice/kubepods-burstable.slice"
UNDERSCORED = UID.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "pod"),
    [
        (f"{CGROUP}/kubepods/burstable/pod{UID}/abc", UID),
        (f"{CGROUP}/kubepods/besteffort/pod{UID}", UID),
        (f"{CGROUP}/kubepods/pod{UID}/abc/nested/deeper", UID),
        (f"{CGROUP}/unified/sandbox/node-1/kubepods/burstable/pod{UID}/c", UID),
        (f"{CGROUP}/kubepods/burstable/pod{HASH}/abc", HASH),
        (f"{SLICE}/kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-abc.scope", UID),
        (f"{CGROUP}/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-abc.scope", UID),
        (
            f"{CGROUP}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
            f"/kubelet-kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-abc.scope",
            UID,
        ),
        # The outermost counts, whatever a pod names its own cgroups.
        (f"{CGROUP}/kubepods/burstable/pod{UID}/c/kubepods/burstable/pod{OTHER}/c", UID),
        (f"{CGROUP}/kubepods/burstable/x/kubepods/burstable/pod{OTHER}/c", ""),
        (f"{CGROUP}/kubepods/burstable/podx/pod{OTHER}/c", ""),
        (f"{CGROUP}/system.slice/kubelet.service", ""),
        (f"{CGROUP}/kubepods", ""),
        (f"{CGROUP}/kubepods/burstable", ""),
        (f"{CGROUP}/user.slice/pod{UID}", ""),
        ("/", ""),
    ],
)
def test_a_cgroups_path_names_the_pod_that_the_kubelet_made_it_for(path: str, pod: str) -> None:
    assert pod_of(path) == pod


POD = f"{CGROUP}/kubepods/burstable/pod{UID}/abc"
SERVICE = f"{CGROUP}/system.slice/podidentity.service"
# As containerd with the cgroupfs driver makes it below a kubelet with the systemd driver.
MISPLACED = f"{CGROUP}/kubepods-besteffort-pod{UNDERSCORED}.slice:cri-containerd:abc"


@pytest.mark.parametrize(
    ("path", "is_part", "shows_pods", "doubt"),
    [
        (POD, False, True, ""),
        (POD, False, False, ""),
        (POD, True, False, ""),
        (SERVICE, False, True, ""),
        (SERVICE, False, False, "in no pod's cgroup of v2"),
        (CGROUP, True, True, "mount the node's /sys/fs/cgroup"),
        (CGROUP, False, True, ""),
        (CGROUP, False, False, "in no pod's cgroup of v2"),
        (MISPLACED, False, True, "SystemdCgroup = true"),
        (MISPLACED, False, False, "SystemdCgroup = true"),
    ],
)
def test_cgroups_that_do_not_tell_pods_apart_are_a_problem_with_a_next_step(
    path: str, is_part: bool, shows_pods: bool, doubt: str
) -> None:
    found = doubt_of(path, CGROUP, is_part=is_part, shows_pods=shows_pods)
    assert doubt in found
    assert bool(doubt) == bool(found)


def test_nothing_is_looked_up_before_the_tree_was_checked() -> None:
    with pytest.raises(OSError, match="not checked yet"):
        PodCgroups(Path(CGROUP)).pod(1)


def test_a_tree_that_comes_later_is_found_later(tmp_path: Path) -> None:
    cgroups = PodCgroups(tmp_path / "cgroup")
    assert "no cgroup v2 at" in cgroups.check()
    with pytest.raises(OSError, match="no cgroup v2 at"):
        cgroups.pod(1)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "cgroup.controllers").touch()
    assert "no cgroup v2 at" not in cgroups.check()
    cgroups.close()


@pytest.fixture
def container() -> Iterator[Path]:
    """Make the cgroup of a pod's container, which a test may remove."""
    with pod_cgroups([UID]) as root:
        yield root / "kubepods" / "burstable" / f"pod{UID}" / "main"


def id_of(cgroup: Path) -> int:
    """Return the id that the kernel reports with a socket: the number of the inode."""
    return cgroup.stat().st_ino


@pytest.fixture
def known(container: Path) -> Iterator[PodCgroups]:
    """Look cgroups up in the tree of `container`."""
    found = PodCgroups(container.parents[3])
    assert not found.check()
    yield found
    found.close()


@needs_root
def test_a_removed_cgroup_is_nobodys_at_once_though_its_name_was_known(
    container: Path, known: PodCgroups
) -> None:
    former = id_of(container)
    assert [known.pod(former), known.pod(former)] == [UID, UID]
    container.rmdir()
    with pytest.raises(OSError, match="cannot look up") as gone:
        known.pod(former)
    assert gone.value.errno == errno.ESTALE
    container.mkdir()  # the next container of the same name
    assert id_of(container) != former
    assert known.pod(id_of(container)) == UID
    with pytest.raises(OSError, match="cannot look up"):
        known.pod(former)


@needs_root
def test_a_cgroup_that_could_be_given_another_name_would_be_another_pods(container: Path) -> None:
    with pytest.raises(PermissionError):
        container.rename(container.with_name("other"))


@needs_root
def test_names_of_cgroups_are_remembered_and_no_more_of_them_than_a_bound(
    container: Path, known: PodCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_MOST_NAMES", 3)
    ids = []
    for number in range(4):
        (container / str(number)).mkdir()
        ids.append(id_of(container / str(number)))
    read: list[str] = []
    readlink = os.readlink

    def counted(path: str) -> str:
        read.append(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", counted)
    for each in (ids[0], ids[1], ids[0], ids[2], ids[1]):
        assert known.pod(each) == UID
    assert len(read) == 3
    known.pod(ids[3])
    known.pod(ids[0])
    assert len(read) == 5, "what was remembered has made room"
