"""Fetches packages with this machine's apt and pip, which know its archives, proxies and keys.

What is fetched stays in a folder under its hash, and is not fetched again. Nothing is installed.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from urllib.parse import quote, unquote

from deploy.image.contents import NOT_INSTALLED, PLATFORMS, PYTHON, ROOTS
from deploy.image.pins import Deb, Wheel

_APT_HELPER = Path("/usr/lib/apt/apt-helper")
_AT_ONCE = 4
"""Packages that are fetched at the same time: most of a fetch is waiting."""
_KEYS = "/usr/share/keyrings/debian-archive-keyring"
SUITE = "trixie"


class Missing(Exception):
    """A program, or a package, is not to be had: what, and what to do."""


class Gone(Missing):
    """A pinned package is no longer where packages are fetched from."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def need_programs() -> None:
    """Raise Missing unless this machine can fetch and read Debian's packages."""
    lacking = [name for name in ("apt-get", "dpkg-deb") if which(name) is None]
    if lacking or not _APT_HELPER.exists():
        raise Missing(
            f"{' and '.join(lacking) or _APT_HELPER} is not here: the image is built on Debian, "
            "Ubuntu or in a container of them. Install apt and dpkg."
        )


# ---------------------------------------------------------------- Debian


def fetch_debs(
    debs: Iterable[Deb], cache: Path, mirrors: Sequence[str], *, by: str = "./scripts/image"
) -> list[Path]:
    """Return the files of pinned packages, in order; Gone if one is nowhere to be had.

    `by` is the program that renews the pins.
    """
    paths = [(deb, cache / "debs" / f"{deb.sha256}.deb") for deb in debs]
    lacking = [(deb, path) for deb, path in paths if not path.exists()]
    if lacking:
        (cache / "debs").mkdir(parents=True, exist_ok=True)
        places = mirrors or archives()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for done in [pool.submit(_fetch_deb, *each, places, by) for each in lacking]:
                done.result()
    return [path for _, path in paths]


def _fetch_deb(deb: Deb, path: Path, places: Sequence[str], by: str) -> None:
    said = []
    with TemporaryDirectory(dir=path.parent) as folder:
        for archive in places:
            uri = f"{archive.rstrip('/')}/{quote(deb.path, safe='/~')}"
            target = Path(folder, "package.deb")
            done = _run(
                str(_APT_HELPER),
                *("-o", "APT::Sandbox::User=root"),
                *("download-file", uri, str(target), f"SHA256:{deb.sha256}"),
            )
            if done.returncode == 0:
                target.rename(path)
                return
            said.append(done.stderr)
    reason = re.findall(r"Hash Sum mismatch|404 .*?Not Found|Could not .*", "\n".join(said))
    raise Gone(
        f"{deb.name} {deb.version} ({deb.architecture}) cannot be fetched: "
        f"{reason[0] if reason else 'no archive of this machine has it'}. Archives drop versions "
        f"that were replaced: renew the pins with {by} --renew-pins, or name an archive "
        "that keeps them with --mirror URL."
    )


def archives() -> list[str]:
    """Return the URLs of this machine's archives; its lists of packages need not be there."""
    targets = ("indextargets", "--no-release-info", "--format", "$(REPO_URI)")
    return list(dict.fromkeys(_checked("apt-get", *targets).split()))


def newest_debs(architecture: str, mirrors: Sequence[str]) -> list[Deb]:
    """Return today's versions of the image's packages, as the archives' signed lists have them."""
    return newest_of(ROOTS, architecture, mirrors, without=NOT_INSTALLED)


def newest_of(
    roots: Iterable[str],
    architecture: str,
    mirrors: Sequence[str],
    *,
    suite: str = SUITE,
    without: Collection[str] = (),
) -> list[Deb]:
    """Return today's versions of packages and of what they depend on, by a suite's signed lists."""
    with TemporaryDirectory() as name:
        apt = _own_apt(Path(name), architecture, mirrors, suite)
        _checked(*apt, "update")
        plan = _checked(*apt, "install", "--print-uris", "--yes", "--no-install-recommends", *roots)
        names = set(re.findall(r"^'.*?' ([^_]+)_", plan, re.MULTILINE))
        unused = set(without) - names
        if unused:
            raise Missing(f"Nothing needs {', '.join(sorted(unused))}: see NOT_INSTALLED.")
        listed = _checked(*apt, "download", "--print-uris", *sorted(names - set(without)))
    line = r"^'.*?/(pool/.*?)' ([^_]+)_([^_]+)_([^_]+)\.deb \d+ SHA256:(\w+)$"
    return [
        Deb(package, unquote(version), its, unquote(path), sha256)
        for path, package, version, its, sha256 in re.findall(line, listed, re.MULTILINE)
    ]


def _own_apt(
    folder: Path, architecture: str, mirrors: Sequence[str], suite: str = SUITE
) -> list[str]:
    """Return apt-get with a state of its own, in which nothing is installed."""
    for each in ("state/lists/partial", "cache/archives/partial", "parts"):
        (folder / each).mkdir(parents=True)
    (folder / "status").touch()
    options = [
        *(f"Dir::State={folder}/state", f"Dir::Cache={folder}/cache"),
        *(f"Dir::State::status={folder}/status", f"APT::Architecture={architecture}"),
        *(f"APT::Architectures={architecture}", "APT::Sandbox::User=root"),
        *("Acquire::Languages=none", "Debug::NoLocking=1"),
    ]
    if mirrors:
        sources = folder / "sources.list"
        sources.write_text("".join(_source(each, suite) for each in mirrors))
        options += [f"Dir::Etc::sourcelist={sources}", f"Dir::Etc::sourceparts={folder}/parts"]
    return ["apt-get", "-qq", *(word for each in options for word in ("-o", each))]


def newest_file(package: str, member: str, place: Path, architecture: str) -> None:
    """Fetch one file of a Debian package of this machine's architecture."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=place.parent) as name:
        folder = Path(name)
        apt = _own_apt(folder, architecture, ())
        _checked(*apt, "update")
        _checked(*apt, "download", package, folder=folder)
        (deb,) = folder.glob("*.deb")
        archive = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, stdout=subprocess.PIPE
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extract(member, folder, filter="data")
        Path(folder, member).rename(place)


def _source(mirror: str, suite: str) -> str:
    if mirror.rstrip("/").endswith("-security"):
        suite = f"{suite}-security"
    keys = next((each for each in (f"{_KEYS}.pgp", f"{_KEYS}.gpg") if Path(each).exists()), "")
    if not keys:
        raise Missing(f"{_KEYS}.gpg is not here. Install debian-archive-keyring.")
    return f"deb [signed-by={keys} check-valid-until=no] {mirror} {suite} main\n"


# ---------------------------------------------------------------- Python


def fetch_wheels(wheels: Sequence[Wheel], architecture: str, cache: Path) -> list[Path]:
    """Return the files of pinned wheels, in order."""
    lacking = [each for each in wheels if not (cache / "wheels" / each.file).exists()]
    if lacking:
        pins = {(each.name, each.version): frozenset({each.sha256}) for each in lacking}
        newest_wheels(pins, architecture, cache)
    for each in wheels:
        if digest(cache / "wheels" / each.file) != each.sha256:
            raise Missing(f"{cache / 'wheels' / each.file} has changed. Delete it.")
    return [cache / "wheels" / each.file for each in wheels]


def newest_wheels(
    pins: dict[tuple[str, str], frozenset[str]], architecture: str, cache: Path
) -> list[Wheel]:
    """Return the wheels of pinned libraries for the image, and keep their files in `cache`."""
    with TemporaryDirectory() as name:
        requirements = Path(name, "requirements.txt")
        requirements.write_text(
            "".join(
                " ".join([f"{library}=={version}", *(f"--hash=sha256:{each}" for each in hashes)])
                + "\n"
                for (library, version), hashes in sorted(pins.items())
            )
        )
        machine = PLATFORMS[architecture]
        platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 16, -1)]
        out = Path(name, "wheels")
        done = _run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(out)),
            *("--python-version", PYTHON, "--implementation", "cp"),
            *(
                word
                for each in [*platforms, f"manylinux2014_{machine}"]
                for word in ("--platform", each)
            ),
            *("--requirement", str(requirements)),
        )
        if done.returncode:
            raise Gone(
                f"Wheels of {architecture} cannot be fetched: {done.stderr.strip()}. If one was "
                "withdrawn, renew the pins with ./scripts/lock, then ./scripts/image --renew-pins."
            )
        (cache / "wheels").mkdir(parents=True, exist_ok=True)
        found = []
        for path in sorted(out.iterdir()):
            found.append(Wheel(path.name, digest(path)))
            path.rename(cache / "wheels" / path.name)
        return found


def _run(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def _checked(*command: str, folder: Path | None = None) -> str:
    done = _run(*command, folder=folder)
    if done.returncode:
        what = " ".join(word for word in command if not word.startswith(("-", "Dir::", "APT::")))
        raise Missing(
            f"{what}: {done.stderr.strip()}. The image is made of Debian {SUITE}: if this "
            "machine's archives are others, name one with --mirror URL."
        )
    return done.stdout
