"""Two wheels from one repository: the product alone, and the sandbox that judges it.

Both are built as `pip` would build them, and installed side by side or alone in environments that
hold nothing but what `requirements` pins for them. Without a network: what is installed there are
links to the packages of this environment.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import podidentity_sandbox

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return both wheels by the name of their distribution."""
    out = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "sandbox"):
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
        subprocess.run([*build, "--directory", str(out)], cwd=project, check=True)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


@pytest.fixture(scope="module")
def alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the product's wheel and its pins, and nothing else."""
    place = tmp_path_factory.mktemp("alone")
    install(place, wheels["podidentity"], pinned((ROOT / "requirements/product.txt").read_text()))
    return place


def pinned(requirements: str) -> list[str]:
    """Return the names of the pins that hold for this Python and this machine."""
    lines = re.findall(r"^([a-z0-9._-]+==.*?) *\\?$", requirements, re.MULTILINE)
    found = list(map(Requirement, lines))
    assert len(found) > 5
    return [each.name for each in found if each.marker is None or each.marker.evaluate()]


def install(place: Path, wheel: Path, packages: Iterable[str]) -> None:
    """Make an environment in `place`, or add to it: packages by links, and a wheel."""
    if not (place / "bin").exists():
        venv.create(place, symlinks=True, with_pip=False)
    target = next(place.glob("lib/python3*/site-packages"))
    for name in packages:
        for path in distribution(name).files or ():
            top = path.parts[0]
            if top != ".." and not (target / top).exists():
                (target / top).symlink_to(
                    Path(str(path.locate())).parents[len(path.parts) - 1] / top
                )
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--offline"]
    subprocess.run(
        [*uv, "--no-deps", "--python", str(place / "bin/python"), str(wheel)], check=True
    )


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program, *rest = command
    return subprocess.run(
        [str(place / "bin" / program), *rest],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={},
        timeout=60,
    )


def test_each_wheel_holds_its_own_package_and_none_of_the_other(wheels: dict[str, Path]) -> None:
    for name, path in wheels.items():
        files = zipfile.ZipFile(path).namelist()
        tops = {each.split("/")[0] for each in files if ".dist-info/" not in each}
        assert tops == {name}
    assert set(wheels) == {"podidentity", "podidentity_sandbox"}


def test_each_wheel_holds_every_tracked_file_of_its_package(wheels: dict[str, Path]) -> None:
    for name, path in wheels.items():
        listed = subprocess.run(
            ["git", "ls-files", f"src/{name}"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split()
        kept = {each.removeprefix("src/") for each in listed if (ROOT / each).is_file()}
        assert len(kept) > 50
        assert kept <= set(zipfile.ZipFile(path).namelist())


def test_the_product_works_without_the_sandbox_and_what_it_needs(alone: Path) -> None:
    for absent in ("podidentity_sandbox", "aiohttp", "jwt", "dns", "jsonpatch"):
        assert run(alone, "python", "-c", f"import {absent}").returncode == 1
    told = run(alone, "podidentity", "--help")
    assert told.returncode == 0, told.stderr
    assert "sandbox" not in told.stdout
    assert run(alone, "kubectl-podidentity", "nmi", "--help").returncode == 0


def test_every_module_of_the_product_can_be_loaded_without_the_sandbox(alone: Path) -> None:
    load = (
        "import importlib, pkgutil, podidentity\n"
        "for found in pkgutil.walk_packages(podidentity.__path__, 'podidentity.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
    )
    loaded = run(alone, "python", "-W", "error", "-c", load)
    assert loaded.returncode == 0, loaded.stderr


def test_who_asks_for_the_sandbox_without_having_it_is_told_what_to_install(alone: Path) -> None:
    for words in (["up", "--nodes", "3"], ["--help"]):
        told = run(alone, "podidentity", "sandbox", *words)
        assert told.returncode == 1
        assert "command 'sandbox' cannot be loaded: it is not installed" in told.stderr
        assert "pip install podidentity-sandbox" in told.stderr


def test_the_sandbox_beside_the_product_brings_its_command(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    install(
        tmp_path, wheels["podidentity"], pinned((ROOT / "requirements/product.txt").read_text())
    )
    needed = pinned((ROOT / "requirements/dev.txt").read_text())
    install(tmp_path, wheels["podidentity_sandbox"], needed)
    told = run(tmp_path, "podidentity", "sandbox", "--help")
    assert told.returncode == 0, told.stderr
    assert "up" in told.stdout


def test_the_sandbox_wants_the_product_of_its_own_version() -> None:
    product, sandbox = (
        tomllib.loads((ROOT / each).read_text())["project"]
        for each in ("pyproject.toml", "sandbox/pyproject.toml")
    )
    assert sandbox["version"] == product["version"]
    assert f"podidentity=={product['version']}" in sandbox["dependencies"]
    assert podidentity_sandbox.__version__ == sandbox["version"]
