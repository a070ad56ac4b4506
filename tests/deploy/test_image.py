"""The image, built as a release builds it: its bytes, what is in it, and that it runs.

Run by `./scripts/test --image`: it fetches packages the first time. Programs run in the unpacked
image as root only, because a mount makes it read-only.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest

from deploy.image import contents
from deploy.image.packages import fetch_debs, fetch_wheels
from deploy.image.pins import read
from deploy.image.tree import is_removed, joined, of_deb, of_wheel
from podidentity import __version__
from podidentity.manifests import IMAGE, nmi
from podidentity.settings import SERVE_UID
from tests.deploy.images import CACHE, ROOT, Archive, Opened, build, copied_checkout, inside, opened
from tests.docs.blocks import blocks_of, promised


class Run(Protocol):
    """Runs a program in the image, which must succeed, and returns what it printed."""

    def __call__(self, *command: str, user: str = "") -> str: ...


ARCHITECTURES = ("amd64", "arm64")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Return a folder that is deleted at the end: 400 MB are too much to keep."""
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def archive(place: Path) -> Archive:
    return build(place / "image", "--try", "--build", "of a test")


@pytest.fixture(scope="module")
def images(archive: Archive) -> dict[str, Opened]:
    return opened(archive)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def image(request: pytest.FixtureRequest, images: dict[str, Opened]) -> Opened:
    return images[request.param]


@pytest.fixture(scope="module")
def roots(images: dict[str, Opened], place: Path) -> dict[str, Path]:
    return {
        architecture: each.unpack(place / architecture) for architecture, each in images.items()
    }


@pytest.fixture(scope="module")
def run(roots: dict[str, Path], images: dict[str, Opened]) -> Run:
    """Return what runs a program in the image of this machine's architecture."""
    if os.geteuid():
        pytest.skip("needs root: a mount makes the image read-only")
    machine = {kernel: debian for debian, kernel in contents.PLATFORMS.items()}[os.uname().machine]

    def run(*command: str, user: str = "") -> str:
        ran = inside(roots[machine], images[machine].config, *command, user=user)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


# ---------------------------------------------------------------- pins and bytes


def test_the_pinned_packages_are_to_be_had(archive: Archive) -> None:
    """Archives drop what was replaced: not a fault of this commit, but to be mended soon."""
    if "building of today's packages" in archive.warned:
        pytest.xfail(f"run ./scripts/image --renew-pins: {archive.warned.splitlines()[0]}")


def test_the_same_pins_give_the_same_bytes_in_another_folder_at_another_time(
    archive: Archive, place: Path
) -> None:
    checkout = copied_checkout(place / "elsewhere")
    cache = place / "cache"
    cache.mkdir()
    for kept in {"debs", "wheels", "newest"} & {each.name for each in CACHE.iterdir()}:
        (cache / kept).symlink_to(CACHE / kept)
    again = build(
        *(place / "again", "--build", "of a test"),
        checkout=checkout,
        cache=cache,
        TZ="Asia/Tokyo",
        LC_ALL="C",
        HOME=str(place),
        PYTHONHASHSEED="7",
    )
    assert again.files() == archive.files()


def test_no_file_is_of_a_time_an_owner_or_a_dangerous_mode(image: Opened) -> None:
    for name, entry in image.entries().items():
        assert (entry.mtime, entry.uid, entry.gid) == (0, 0, 0), name
        assert not entry.mode & 0o6000, name
        assert not entry.mode & 0o022 or entry.issym() or name == "tmp", name


def test_no_file_names_the_machine_that_built_it(image: Opened) -> None:
    for layer in image.layers:
        assert str(ROOT).encode() not in layer


def test_its_size_is_within_the_bars(image: Opened) -> None:
    assert sum(map(len, image.layers)) <= 90 * 2**20
    assert image.packed <= 30e6


def test_the_page_on_building_it_says_what_happens(archive: Archive, place: Path) -> None:
    if "building of today's packages" in archive.warned:
        pytest.xfail("the pinned packages are gone")
    checkout = copied_checkout(place / "checkout")
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    # What is linked is set up already; set up anew it would lead to the copy.
    (checkout / "scripts/setup").write_text("#!/bin/sh\n")
    (checkout / ".cache").symlink_to(ROOT / ".cache")
    page = [*blocks_of(ROOT / "docs/how-to/build-the-image.md"), None]
    for block, following in pairwise(page):
        if block is None or block.mark != "run=image":
            continue
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{block.text}: {ran.stderr}"
        if following is not None and following.language == "text":
            assert promised(ran.stdout, following.text), f"{block.text}: {ran.stdout}"


# ---------------------------------------------------------------- what is in it


def test_it_has_no_shell_no_installer_and_no_sandbox(image: Opened) -> None:
    names = image.entries()
    programs = {
        PurePosixPath(name).name for name in names if re.match(r"usr/(local/)?s?bin/.", name)
    }
    assert programs == {"python3", "python3.13", "podidentity"}
    for absent in ("pip", "setuptools", "podidentity_sandbox", "aiohttp", "test", "ensurepip"):
        assert not [name for name in names if f"/{absent}/" in name], absent


def test_all_modules_are_compiled_never_to_be_compared_with_a_source(image: Opened) -> None:
    names = image.entries()
    sources = {name for name in names if name.endswith(".py")}
    assert sources
    for name in sources:
        path = PurePosixPath(name)
        assert str(path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc") in names
    assert {name.split("/dist-packages/")[1].split("/")[0] for name in sources} == {"podidentity"}


def test_the_flags_of_the_bytecode_say_unchecked(roots: dict[str, Path]) -> None:
    for root in roots.values():
        compiled = list(root.rglob("*.pyc"))
        assert len(compiled) > 500
        for path in compiled:
            assert struct.unpack("<I", path.read_bytes()[4:8]) == (0b01,), path


def test_each_library_that_a_program_needs_is_there(roots: dict[str, Path]) -> None:
    for root in roots.values():
        there = {path.name for path in root.rglob("*.so*")}
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                lacking = set(needed(path.read_bytes())) - there
                assert not lacking, (path, lacking)


def needed(data: bytes) -> Iterator[str]:
    """Yield the libraries that an ELF file of 64 bits names (elf(5): DT_NEEDED)."""
    if data[:5] != b"\x7fELF\x02":
        return
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + n * size) for n in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != 6:  # SHT_DYNAMIC
            continue
        strings = sections[link][4]
        for place in range(offset, offset + length, 16):
            tag, value = struct.unpack_from("<qQ", data, place)
            if tag == 1:  # DT_NEEDED
                begin = strings + value
                yield data[begin : data.index(b"\0", begin)].decode()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whatever_is_left_out_was_there(architecture: str, archive: Archive) -> None:
    """A reason for what no package has any more is stale."""
    newest = CACHE / "newest"
    pins = read(
        newest if "today's packages" in archive.warned else ROOT / "deploy/image", architecture
    )
    debian = joined(map(of_deb, fetch_debs(pins.debs, CACHE, ())))
    wheels = joined(map(of_wheel, fetch_wheels(pins.wheels, architecture, CACHE)))
    gone = {path for path in debian | wheels if is_removed(path)}
    unused = [
        pattern
        for pattern in contents.REMOVED
        if not any(fnmatchcase(path, pattern) for path in gone)
    ]
    assert not unused


def test_licences_are_kept(image: Opened, archive: Archive) -> None:
    names = image.entries()
    for component in archive.bill(image.architecture)["components"]:
        if component["purl"].startswith("pkg:deb/"):
            folder = f"usr/share/doc/{component['name']}"
            assert f"{folder}/copyright" in names or names[folder].issym(), folder


# ---------------------------------------------------------------- what it says of itself


def test_it_says_what_it_is(image: Opened) -> None:
    settings = image.config["config"]
    labels = settings["Labels"]
    assert settings["Entrypoint"] == ["podidentity"]
    assert settings["User"] == f"{SERVE_UID}:{SERVE_UID}"
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert not [value for value in labels.values() if "://" in value]


def test_it_has_the_name_that_enable_gives_it(archive: Archive) -> None:
    (entry,) = json.loads(archive.members()["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == IMAGE


def test_its_bill_has_each_package_with_its_hash(image: Opened, archive: Archive) -> None:
    bill = archive.bill(image.architecture)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    components = {each["purl"]: each for each in bill["components"]}
    names = image.entries()
    debian = {each["name"] for each in components.values() if "pkg:deb" in each["purl"]}
    records = {name.split("/")[-1] for name in names if "dpkg/status.d/" in name}
    assert debian == records - {"status.d"}
    python = {each["name"] for each in components.values() if "pkg:pypi" in each["purl"]}
    installed = {
        re.sub(r"[-_.]+", "-", found[1]).lower()
        for name in names
        if (found := re.search(r"/([^/]+)-[^-/]+\.dist-info/METADATA$", name))
    }
    assert python == installed - {"podidentity"}
    for each in components.values():
        (found,) = each["hashes"]
        assert re.fullmatch("[0-9a-f]{64}", found["content"])
    (cryptography,) = (each for each in components.values() if each["name"] == "cryptography")
    assert "openssl" in {each["name"] for each in cryptography["components"]}


def test_each_reference_of_its_bill_is_one_of_a_kind(image: Opened, archive: Archive) -> None:
    def references(components: list[dict[str, object]]) -> Iterator[object]:
        for each in components:
            yield each["bom-ref"]
            yield from references(each.get("components", []))  # type: ignore[arg-type]

    found = list(references(archive.bill(image.architecture)["components"]))
    assert len(found) == len(set(found)) > 40


# ---------------------------------------------------------------- that it runs


def test_the_command_of_both_architectures_was_run(archive: Archive) -> None:
    for architecture, machine in contents.PLATFORMS.items():
        (said,) = re.findall(f"^{architecture} ran: (.*)$", archive.said, re.MULTILINE)
        found = json.loads(said)
        assert (found["machine"], found["version"]) == (machine, __version__)


def test_it_names_its_commit_and_its_build(run: Run, image: Opened) -> None:
    found = json.loads(run("podidentity", "version", "--client", "-o", "json"))
    assert found["commit"] == image.config["config"]["Labels"]["org.opencontainers.image.revision"]
    assert found["build"] == "of a test"


@pytest.mark.parametrize("command", ["", "nmi", "net", "serve", "enable"])
def test_each_of_its_commands_starts(run: Run, command: str) -> None:
    assert "Usage: podidentity" in run("podidentity", *command.split(), "--help")


def test_each_module_of_the_product_can_be_loaded_in_it(run: Run) -> None:
    run(
        *("python3", "-I", "-W", "error", "-c"),
        "import importlib, pkgutil, podidentity\n"
        "for found in pkgutil.walk_packages(podidentity.__path__, 'podidentity.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n",
    )


def test_nothing_is_compiled_when_the_agent_starts(run: Run) -> None:
    told = run(
        *("python3", "-I", "-c"),
        "import importlib._bootstrap_external as loading, builtins\n"
        "def refused(*_, **__): raise SystemExit('compiled')\n"
        "loading.SourceLoader.source_to_code = refused\n"
        "import podidentity.nmi.main, podidentity.net.main, podidentity.supervisor.main\n"
        "print('loaded')",
    )
    assert told == "loaded\n"


def test_it_trusts_the_authorities_that_debian_trusts(run: Run) -> None:
    told = run(
        "python3", "-I", "-c", "import ssl; print(ssl.create_default_context().cert_store_stats())"
    )
    assert int(re.findall(r"'x509_ca': (\d+)", told)[0]) > 100


def test_it_sets_rules_in_its_own_namespace(run: Run) -> None:
    told = run(
        *("python3", "-I", "-c"),
        "import ctypes\n"
        "nft = ctypes.CDLL('libnftables.so.1')\n"
        "nft.nft_ctx_new.restype = ctypes.c_void_p\n"
        "ctx = ctypes.c_void_p(nft.nft_ctx_new(0))\n"
        "print(nft.nft_run_cmd_from_buffer(ctx, b'add table ip podid; list tables'))",
        user="0:0",
    )
    assert "table ip podid" in told


def test_the_probes_of_the_manifest_run_in_it(run: Run) -> None:
    agents = ("DaemonSet", "nmi")
    (daemon_set,) = (each for each in nmi() if (each["kind"], each["metadata"]["name"]) == agents)
    containers = daemon_set["spec"]["template"]["spec"]["containers"]
    (serve,) = (each for each in containers if each["name"] == "serve")
    command = serve["readinessProbe"]["exec"]["command"]
    told = run(
        *("python3", "-I", "-c"),
        "import json, os, socket, subprocess, sys\n"
        "command = json.loads(sys.argv[1])\n"
        "os.mkdir('/run/podidentity')\n"
        "listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "listener.bind(command[-2]); listener.listen()\n"
        "probe = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "asked, _ = listener.accept()\n"
        "assert asked.recv(100) == b'ready'\n"
        "asked.send(b'ok: it is')\n"
        "print(probe.communicate()[0], probe.returncode)\n",
        json.dumps(command),
    )
    assert told.split() == ["ok:", "it", "is", "0"]


def test_its_user_and_root_have_names(run: Run) -> None:
    names = f"import pwd; print(*(pwd.getpwuid(each).pw_name for each in (0, {SERVE_UID})))"
    assert run("python3", "-I", "-c", names) == "root podidentity\n"


def test_what_it_writes_of_its_own_source_is_a_traceback_with_lines(run: Run) -> None:
    told = run(
        *("python3", "-I", "-c"),
        "import traceback\n"
        "from podidentity.wire import manifests\n"
        "try: manifests.parse_identity(None)\n"
        "except Exception: print(traceback.format_exc())",
    )
    assert "/podidentity/wire/manifests.py" in told
    assert "    " in told
