"""`./scripts/setup-kubernetes`: the programs are those of the list, or say why not."""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.kubernetes import programs
from tests.kubernetes.programs import CONTAINERD, KUBERNETES, LIST, listed

PROGRAM = b"#!/bin/sh\necho kube\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that programs are brought into; the list has one program, `kube`."""
    packed = lzma.compress(PROGRAM)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/kube.xz").write_bytes(packed)
    (tmp_path / "list.toml").write_text(
        f'[kube]\nversion = "Kubernetes 1.37.2"\nsha256 = "{hashlib.sha256(packed).hexdigest()}"\n'
        'folder = "kubernetes"\nnames = ["kubelet"]\n'
    )
    there = tmp_path / "cache/there"
    monkeypatch.setattr(programs, "LIST", tmp_path / "list.toml")
    monkeypatch.setattr(programs, "place", lambda: there)
    monkeypatch.setattr(programs, "go_that_builds", lambda: None)
    monkeypatch.delenv("PODIDENTITY_KUBERNETES", raising=False)
    return there


def set_up(*arguments: str | Path) -> Result:
    return CliRunner().invoke(programs.main, list(map(str, arguments)))


def own_programs(folder: Path, version: str = "v1.36.1", *more: str) -> Path:
    folder.mkdir()
    for name in ("etcd", *KUBERNETES, *more):
        says = "etcd Version: 3.6.5" if name == "etcd" else f"Kubernetes {version}"
        (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_packed_programs_are_unpacked_and_called_by_each_of_their_names(
    root: Path, tmp_path: Path
) -> None:
    result = set_up(tmp_path / "packed")
    assert (result.exit_code, result.stdout) == (0, f"{root}\n")
    for name in ("kube", "kubelet"):
        assert (root / "kubernetes" / name).read_bytes() == PROGRAM
        assert (root / "kubernetes" / name).stat().st_mode & 0o111


def test_what_is_there_is_not_brought_again(root: Path, tmp_path: Path) -> None:
    set_up(tmp_path / "packed")
    shutil.rmtree(tmp_path / "packed")
    assert set_up().stdout == f"{root}\n"


@pytest.mark.parametrize("other", [lzma.compress(b"other"), None])
def test_a_packed_program_that_is_not_the_one_of_the_list_is_refused_and_nothing_is_kept(
    root: Path, tmp_path: Path, other: bytes | None
) -> None:
    if other is None:
        (tmp_path / "packed/kube.xz").rename(tmp_path / "packed/kubectl.xz")
    else:
        (tmp_path / "packed/kube.xz").write_bytes(other)
    result = set_up(tmp_path / "packed")
    assert result.exit_code == 1
    assert "kube.xz is" in result.stderr
    assert "Kubernetes 1.37.2" in result.stderr
    assert not root.exists()


def test_a_persons_own_programs_are_linked_to_and_their_versions_told(
    root: Path, tmp_path: Path
) -> None:
    given = own_programs(tmp_path / "own")
    result = set_up(given)
    assert result.exit_code == 0
    assert "kubelet: Kubernetes v1.36.1" in result.stderr
    assert "etcd: etcd Version: 3.6.5" in result.stderr
    assert (root / "kubernetes/kubelet").resolve() == given / "kubelet"
    assert not (root / "containerd").exists()


def test_a_persons_own_containerd_comes_along(root: Path, tmp_path: Path) -> None:
    set_up(own_programs(tmp_path / "own", "v1.34.9", *CONTAINERD))
    assert sorted(path.name for path in (root / "containerd").iterdir()) == sorted(CONTAINERD)


@pytest.mark.parametrize("version", ["v1.33.9", "v1.38.0", "v2.0.0"])
def test_a_version_that_no_test_knows_is_refused(root: Path, tmp_path: Path, version: str) -> None:
    result = set_up(own_programs(tmp_path / "own", version))
    assert result.exit_code == 1
    assert f"Kubernetes {version}: the tests need one version from 1.34 to 1.37" in result.stderr
    assert not root.exists()


def test_programs_of_two_versions_are_refused(root: Path, tmp_path: Path) -> None:
    given = own_programs(tmp_path / "own")
    (given / "kubelet").write_text("#!/bin/sh\necho 'Kubernetes v1.35.0'\n")
    result = set_up(given)
    assert "Kubernetes v1.35.0, Kubernetes v1.36.1: the tests need one version" in result.stderr
    assert not root.exists()


def test_a_program_that_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    given = own_programs(tmp_path / "own")
    (given / "kube-proxy").unlink()
    result = set_up(given)
    assert result.exit_code == 1
    assert f"{given}/kube-proxy --version: " in result.stderr
    assert not root.exists()


def test_without_a_folder_and_without_go_one_sentence_names_the_ways(root: Path) -> None:
    result = set_up()
    assert result.exit_code == 1
    for way in ("packed programs", "their releases", "Go 1.26"):
        assert way in result.stderr
    assert result.stderr.count("\n") == 1
    assert not root.exists()


@pytest.mark.parametrize(
    ("says", "builds"), [("go1.26.8", True), ("go1.30", True), ("go1.25.1", False), ("?", False)]
)
def test_go_builds_from_1_26_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, builds: bool
) -> None:
    (tmp_path / "go").write_text(f"#!/bin/sh\necho go version {says} linux/amd64\n")
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert (programs.go_that_builds() is not None) is builds


def test_go_would_build_the_versions_of_the_list() -> None:
    [kube] = [each for each in listed(LIST.read_text()) if each.name == "kube"]
    modules = LIST.with_name("go.mod").read_text()
    [kubernetes] = re.findall(r"k8s\.io/kubernetes v(\S+)", modules)
    [etcd] = re.findall(r"go\.etcd\.io/etcd/server/v3 v(\S+)", modules)
    assert kube.version == f"Kubernetes {kubernetes} with etcd {etcd}"
