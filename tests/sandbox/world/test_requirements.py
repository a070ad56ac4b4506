"""What a machine lacks is said before anything is made, with what to do about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from podidentity_sandbox.world import requirements
from podidentity_sandbox.world.requirements import missing

REFUSES = "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2; exit 1\n"


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which the kernel seems to refuse namespaces, and its settings beside it."""
    for name in ("ip", "nft", "unshare", "nsenter", "setpriv", "mount"):
        (tmp_path / name).write_text(REFUSES)
        (tmp_path / name).chmod(0o755)
    for setting in ("_APPARMOR", "_CLONE", "_LIMIT"):
        monkeypatch.setattr(requirements, setting, tmp_path / setting)
    return tmp_path


def test_each_absent_program_is_named_with_the_package_to_install(refusing: Path) -> None:
    (refusing / "nft").unlink()
    lines = missing(str(refusing), rootless=True)
    assert lines == ["nft is not installed: sudo apt-get install nftables (or the like)"]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("_APPARMOR", "1\n", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("_CLONE", "0\n", "kernel.unprivileged_userns_clone=1"),
        ("_LIMIT", "0\n", "user.max_user_namespaces=10000"),
    ],
)
def test_the_usual_reasons_are_looked_for(
    refusing: Path, setting: str, value: str, says: str
) -> None:
    assert not any(says in line for line in missing(str(refusing), rootless=True))
    (refusing / setting).write_text(value)
    assert any(says in line for line in missing(str(refusing), rootless=True))


def test_root_without_the_capability_is_told_of_the_other_way(refusing: Path) -> None:
    assert any("--rootless" in line for line in missing(str(refusing), rootless=False))


@pytest.mark.parametrize("rootless", [True, False])
def test_who_is_in_a_chroot_without_mounts_is_told_so(refusing: Path, *, rootless: bool) -> None:
    said = "unshare: cannot change root filesystem propagation: Invalid argument"
    (refusing / "unshare").write_text(f"#!/bin/sh\necho '{said}' >&2; exit 1\n")
    quoted, *reasons = missing(str(refusing), rootless=rootless)
    assert quoted == f"the kernel refuses new namespaces: {said}"
    (reason,) = reasons
    assert reason.startswith("this is a chroot: ")


ENTER = """
set -e
mount -t tmpfs none "$1"
for each in /*; do
    name=${each#/}
    if [ -L "$each" ]; then cp -P "$each" "$1/$name"
    elif [ -d "$each" ]; then mkdir "$1/$name"; mount --rbind "$each" "$1/$name"
    fi
done
exec chroot "$1" "$2" -c "$3"
"""


@pytest.mark.net
def test_a_chroot_in_which_a_sandbox_would_run_is_refused(tmp_path: Path) -> None:
    """Its namespaces can be made; but who enters one of them has left the chroot."""
    ask = f"from {missing.__module__} import missing; import os; "
    ask += 'print(missing(os.environ["PATH"], rootless=False))'  # without root the kernel refuses
    enter = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ENTER, "sh")
    done = subprocess.run(
        [*enter, str(tmp_path), sys.executable, ask],
        env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "this is a chroot: whoever enters a pod" in done.stdout, done.stderr
