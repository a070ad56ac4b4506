"""The pins of the image, and what is said when they cannot be followed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deploy.image import packages
from deploy.image.contents import NOT_A_LIBRARY, NOT_INSTALLED, PLATFORMS, ROOTS
from deploy.image.own_python import this_architecture
from deploy.image.packages import Gone, Missing, fetch_debs, need_programs
from deploy.image.pins import Deb, Pins, Stale, check, read, wanted, write

ROOT = Path(__file__).parents[2]
HERE = ROOT / "deploy/image"
REQUIREMENTS = (ROOT / "requirements/product.txt").read_text()


@pytest.fixture(params=PLATFORMS)
def architecture(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_the_wheels_are_those_that_the_product_pins(architecture: str) -> None:
    check(read(HERE, architecture), REQUIREMENTS, architecture)
    assert len(wanted(REQUIREMENTS, architecture)) > 10


def test_pins_name_no_archive_and_no_index(architecture: str) -> None:
    assert "://" not in (HERE / f"{architecture}.pins").read_text()


def test_what_the_image_does_without_is_not_pinned(architecture: str) -> None:
    pins = read(HERE, architecture)
    assert not {each.name for each in pins.debs} & NOT_INSTALLED.keys()
    assert not {each.name for each in pins.wheels} & NOT_A_LIBRARY.keys()
    assert {each.name for each in pins.debs} >= ROOTS.keys()


def test_both_architectures_have_the_same_packages() -> None:
    first, second = (read(HERE, each) for each in PLATFORMS)
    assert {each.name for each in first.debs} == {each.name for each in second.debs}
    assert {(each.name, each.version) for each in first.wheels} == {
        (each.name, each.version) for each in second.wheels
    }


def test_pins_are_read_as_they_were_written(architecture: str, tmp_path: Path) -> None:
    pins = read(HERE, architecture)
    write(tmp_path, architecture, pins)
    assert (tmp_path / f"{architecture}.pins").read_text() == (
        HERE / f"{architecture}.pins"
    ).read_text()


@pytest.mark.parametrize("change", ["missing", "another hash"])
def test_pins_that_fell_behind_the_product_are_refused_by_name(change: str) -> None:
    pins = read(HERE, "amd64")
    first, *rest = pins.wheels
    if change == "missing":
        stale = Pins(pins.debs, tuple(rest))
    else:
        stale = Pins(pins.debs, (dataclasses.replace(first, sha256="0" * 64), *rest))
    with pytest.raises(Stale, match=rf"{first.name} {first.version}.*--renew-pins"):
        check(stale, REQUIREMENTS, "amd64")


def test_a_package_that_no_archive_has_is_named_with_the_next_step(tmp_path: Path) -> None:
    deb = Deb("libx", "1:2-3", "amd64", "pool/main/libx/libx_2-3_amd64.deb", "0" * 64)
    with pytest.raises(
        Gone, match=r"libx 1:2-3 \(amd64\) cannot be fetched.*--renew-pins.*--mirror"
    ):
        fetch_debs([deb], tmp_path, [f"file:{tmp_path}"])


def test_a_package_with_another_hash_is_refused(tmp_path: Path) -> None:
    deb = Deb("libx", "2-3", "amd64", "pool/libx.deb", "0" * 64)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/libx.deb").write_bytes(b"forged")
    with pytest.raises(Gone, match="Hash Sum mismatch"):
        fetch_debs([deb], tmp_path, [f"file:{tmp_path}"])
    assert not list((tmp_path / "debs").iterdir())


def test_a_package_is_fetched_from_the_mirror_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "pool/libx_2+3~4_amd64.deb"
    path.parent.mkdir()
    path.write_bytes(b"a package")
    deb = Deb("libx", "2+3~4", "amd64", "pool/libx_2+3~4_amd64.deb", packages.digest(path))
    (found,) = fetch_debs([deb], tmp_path / "cache", [f"file:{tmp_path}/none", f"file:{tmp_path}"])
    assert found.read_bytes() == b"a package"


def test_the_archives_of_a_machine_are_known_before_its_lists_were_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources = tmp_path / "sources.list"
    sources.write_text(
        "deb [trusted=yes] file:/one stable main\ndeb [trusted=yes] file:/two stable main\n"
    )
    settings = tmp_path / "apt.conf"
    settings.write_text(
        f'Dir::Etc::sourcelist "{sources}"; Dir::Etc::sourceparts "-";'
        f' Dir::State "{tmp_path}"; Dir::Cache "{tmp_path}";'
    )
    monkeypatch.setenv("APT_CONFIG", str(settings))
    assert packages.archives() == ["file:/one/", "file:/two/"]


def test_a_machine_of_another_kind_is_told_which_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(Missing, match=r"riscv64 cannot build.*x86_64 or aarch64"):
        this_architecture()


def test_a_machine_without_apt_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "which", lambda _: None)
    with pytest.raises(Missing, match=r"apt-get and dpkg-deb is not here.*Install apt and dpkg"):
        need_programs()
