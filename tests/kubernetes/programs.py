"""`./scripts/setup-kubernetes`: brings the programs of a real Kubernetes into `.cache`."""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent
LIST = _HERE / "programs.toml"
KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
)
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
OLDEST, NEWEST = 34, 37
"""Minor versions of Kubernetes 1 that the tests are proved on; those between are expected to do."""


class Unusable(click.ClickException):
    """Programs that are missing, differ from the list or have another version."""


@dataclass(frozen=True, slots=True)
class Program:
    """A packed program of the list."""

    name: str
    version: str
    sha256: str
    folder: str
    names: Sequence[str] = ()
    """Further names that it is called by, and by which it knows what to be."""


def listed(text: str) -> list[Program]:
    """Return the programs of a list such as `programs.toml`."""
    return [Program(name=name, **entry) for name, entry in tomllib.loads(text).items()]


def place(root: Path = ROOT) -> Path:
    """Return the folder that has, or will have, the programs of today's list."""
    return root / ".cache/kubernetes" / hashlib.sha256(LIST.read_bytes()).hexdigest()


def unpack(programs: Sequence[Program], packed: Path, into: Path) -> None:
    """Unpack NAME.xz of each program; raise Unusable if one is missing or is another file."""
    for each in programs:
        path = packed / f"{each.name}.xz"
        if not path.is_file():
            raise Unusable(f"{path} is missing: the list wants {each.version}")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != each.sha256:
            raise Unusable(f"{path} is not the {each.version} of the list: its SHA-256 differs")
        click.echo(f"unpacking {each.name}, {each.version}", err=True)
        _install(lzma.decompress(data), into / each.folder / each.name)
        for name in each.names:
            (into / each.folder / name).symlink_to(each.name)


def _install(program: bytes, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(program)
    path.chmod(0o755)


def link(given: Path, into: Path) -> None:
    """Link to programs of a person's own; raise Unusable for a version that no test knows.

    containerd comes along where all three of its programs are there.
    """
    versions = set()
    for name in ("etcd", *KUBERNETES):
        version = _version(given / name)
        click.echo(f"{name}: {version}", err=True)
        if name != "etcd":
            versions.add(version)
    [*others, version] = sorted(versions)
    found = re.fullmatch(r"Kubernetes v1\.(\d+)\.\S+", version)
    if others or not found or not OLDEST <= int(found[1]) <= NEWEST:
        raise Unusable(
            f"{given} has {', '.join(sorted(versions))}: the tests need one version from "
            f"1.{OLDEST} to 1.{NEWEST}"
        )
    rooms: dict[str, Sequence[str]] = {"kubernetes": ("etcd", *KUBERNETES)}
    if all((given / name).is_file() for name in CONTAINERD):
        click.echo(f"containerd: {_version(given / 'containerd')}", err=True)
        rooms["containerd"] = CONTAINERD
    for room, names in rooms.items():
        (into / room).mkdir()
        for name in names:
            (into / room / name).symlink_to((given / name).resolve())


def _version(program: Path) -> str:
    """Return the first line of `--version`; raise Unusable."""
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unusable(f"{program} --version: {error}") from error
    return asked.stdout.partition("\n")[0]


def build(go: str, into: Path) -> None:
    """Build Kubernetes and etcd from Go's modules; raise Unusable."""
    modules = (_HERE / "go.mod").read_text()
    [version] = re.findall(r"k8s\.io/kubernetes v(\S+)", modules)
    click.echo(
        f"building Kubernetes {version}: 7 minutes of two processors, and 3.9 GB for Go's caches",
        err=True,
    )
    of, client = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
    told = {
        f"{of}.gitVersion": f"v{version}",
        f"{of}.gitMajor": "1",
        f"{of}.gitMinor": version.split(".")[1],
        f"{of}.gitTreeState": "clean",
        f"{of}.gitCommit": "0" * 40,
        f"{of}.buildDate": "1970-01-01T00:00:00Z",
        f"{client}.gitVersion": f"v{version}",
    }
    flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in told.items())])
    program = into / "kubernetes/kube"
    command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", flags]
    built = subprocess.run(
        ["env", "CGO_ENABLED=0", *command, "-o", program, "."], cwd=_HERE, check=False
    )
    if built.returncode:
        raise Unusable("Go could not build Kubernetes: it said why above")
    for name in ("etcd", *KUBERNETES):
        program.with_name(name).symlink_to(program.name)


def go_that_builds() -> str | None:
    """Return Go's program if it is new enough for the modules: 1.26 or newer."""
    go = shutil.which("go")
    if go is None:
        return None
    asked = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\bgo1\.(\d+)", asked)
    return go if found and int(found[1]) >= 26 else None


@click.command()
@click.argument(
    "folder",
    required=False,
    envvar="PODIDENTITY_KUBERNETES",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
def main(folder: Path | None) -> None:
    """Bring the programs of a real Kubernetes into .cache/kubernetes.

    FOLDER, or $PODIDENTITY_KUBERNETES, has the packed programs that tests/kubernetes/programs.toml
    lists, or etcd and Kubernetes' programs by their own names, as the archives of their releases
    have them. Without a folder Go 1.26 or newer builds them, in 7 minutes and 3.9 GB, and without
    containerd. A second run finds the programs there and ends at once.

    Example: scripts/setup-kubernetes ~/kubernetes/server/bin
    """
    there = place()
    if there.is_dir():
        click.echo(there)
        return
    there.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=there.parent) as made:
        fresh = Path(made) / "programs"
        fresh.mkdir()
        if folder is not None and any(folder.glob("*.xz")):
            unpack(listed(LIST.read_text()), folder, fresh)
        elif folder is not None:
            link(folder, fresh)
        elif (go := go_that_builds()) is not None:
            build(go, fresh)
        else:
            raise Unusable(
                "name a folder that has the packed programs of tests/kubernetes/programs.toml, or "
                "etcd and Kubernetes' programs from their releases; or install Go 1.26 or newer, "
                "which builds them in 7 minutes and 3.9 GB"
            )
        fresh.rename(there)
    click.echo(there)


if __name__ == "__main__":
    main(prog_name="scripts/setup-kubernetes")
