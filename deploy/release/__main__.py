"""`./scripts/release`: makes all files of a release, and signs their checksums."""

from __future__ import annotations

import datetime
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from deploy.release.addresses import fill_in
from deploy.release.bills import PRODUCT, SANDBOX, bill
from deploy.release.chart import package
from deploy.release.signing import bundle, key_of, signed
from deploy.release.statement import NotReleasable, Section, agreed, plain, section
from deploy.release.wheels import wheels

ROOT = Path(__file__).parents[2]
SUMS = "SHA256SUMS"
NOTES = "release-notes.md"
UNRELEASED = "unreleased"

MANIFESTS = {"": (), "-mic": ("--mic",)}
"""What `enable` is told for each file of manifests: NMI alone, and with the controller."""


@click.command()
@click.argument("version")
@click.option("--key", type=click.Path(path_type=Path), help="Sign the checksums: P-256, PEM.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the files; must be new or empty.  [default: dist/release/VERSION]",
)
@click.option(
    "--image/--no-image",
    default=True,
    show_default=True,
    help="The image archive, which takes minutes and fetches its packages.",
)
@click.option(
    "--image-name",
    metavar="NAME:TAG",
    help="The image in the manifests and of the archive.  [default: localhost/podidentity:VERSION]",
)
@click.option(
    "--repository",
    metavar="URL",
    help="Where the repository is published; the wheels, the chart and the notes name it.",
)
@click.option("--draft", is_flag=True, help="Take a version that the changelog calls unreleased.")
def release(
    *,
    version: str,
    key: Path | None,
    output: Path | None,
    image: bool,
    image_name: str | None,
    repository: str | None,
    draft: bool,
) -> None:
    """Make all files of release VERSION of the commit that is checked out.

    The password of a key stands in PODIDENTITY_RELEASE_PASSWORD.
    """
    signing = key_of(key, os.environ.get("PODIDENTITY_RELEASE_PASSWORD", "")) if key else None
    place = output or ROOT / "dist/release" / version
    if place.exists() and any(place.iterdir()):
        raise NotReleasable(f"{place} has files. Remove it, or name another folder by --output.")
    changes = _git("status", "--porcelain")
    if changes:
        raise NotReleasable(f"Not all is committed:\n{changes}\nCommit it, or take a clean clone.")
    epoch = int(_git("log", "-1", "--format=%ct"))
    with exported() as source:
        agreed(source, version)
        said = section((source / "CHANGELOG.md").read_text(), version)
        if said.date in {"", UNRELEASED} and not draft:
            raise NotReleasable(
                f"CHANGELOG.md gives {version} no date. Write '## {version} (YYYY-MM-DD)', "
                "or try it out with --draft."
            )
        if repository:
            fill_in(source, repository, version)
        made = files_of(source, version, epoch, image_name=image_name)
    if image:
        made |= images(epoch, image_name)
    made[NOTES] = notes(said, _git("rev-parse", "HEAD"), made, repository)
    made[SUMS] = sums(made)
    if signing:
        signature = signed(signing, made[SUMS])
        made[f"{SUMS}.sig"] = signature
        made[f"{SUMS}.sigstore.json"] = bundle(signing, signature, made[SUMS])
    place.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        (place / name).write_bytes(data)
    click.echo(made[SUMS].decode(), nl=False)
    click.echo(f"\n{place}, {'signed' if signing else 'NOT signed: give --key'}")


def files_of(
    source: Path, version: str, epoch: int, *, image_name: str | None = None
) -> dict[str, bytes]:
    """Return the files that are made of the tree `source` alone, by name."""
    made: dict[str, bytes] = {}
    when = datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for (file, data), name in zip(wheels(source, epoch).items(), (PRODUCT, SANDBOX), strict=True):
        made[file] = data
        made[f"{name}-{version}.cdx.json"] = bill(
            hashlib.sha256(data).hexdigest(), source=source, name=name, version=version, when=when
        )
    chart, data = package(source / "deploy/chart", epoch)
    made[f"chart-{chart}"] = data
    for suffix, words in MANIFESTS.items():
        named = ("--image", image_name) if image_name else ()
        made[f"podidentity-{version}{suffix}.yaml"] = manifests(source, *words, *named)
    return made


def manifests(source: Path, *words: str) -> bytes:
    """Return what `podidentity enable` of the tree `source` would apply."""
    return subprocess.run(
        [sys.executable, "-m", "podidentity", "enable", "--dry-run", *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source / "src"), "HOME": str(source)},
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def images(epoch: int, image_name: str | None) -> dict[str, bytes]:
    """Return the archive of the image and its bills, which `./scripts/image` makes."""
    named = ("--name", image_name) if image_name else ()
    with TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "deploy.image",
                "--output",
                folder,
                "--build",
                "release",
                *named,
            ],
            cwd=ROOT,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
            check=True,
            stdout=sys.stderr,
        )
        return {f"image-{path.name}": path.read_bytes() for path in sorted(Path(folder).iterdir())}


def notes(
    said: Section, commit: str, made: Mapping[str, bytes], repository: str | None = None
) -> bytes:
    """Return the notes: what changed, what there is, and how to see that it is genuine."""
    words = f"{said.version} --repository {repository}" if repository else said.version
    where = f" of {repository}" if repository else ""
    listed = "\n".join(f"| `{name}` | {len(data):,} |" for name, data in sorted(made.items()))
    return f"""# podidentity {said.version} ({said.date or UNRELEASED})

{plain(said.text)}

## Files

Made of commit `{commit}`{where} by `./scripts/release {words}`, which gives the same bytes to all.

| file | bytes |
|---|---|
{listed}

The public key of the releases, `release.pub`, verifies the checksums, and these the files: one of

```sh
verify="cosign verify-blob --key release.pub --insecure-ignore-tlog=true"
$verify --bundle {SUMS}.sigstore.json {SUMS}
$verify --signature {SUMS}.sig {SUMS}
base64 -d {SUMS}.sig >sig; openssl dgst -sha256 -verify release.pub -signature sig {SUMS}
```

(cosign 3, cosign 2, OpenSSL). Then `sha256sum --check --ignore-missing {SUMS}`.
""".encode()


def sums(made: Mapping[str, bytes]) -> bytes:
    """Return the checksums, as `sha256sum` writes them."""
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(made.items()))
    return "".join(lines).encode()


@contextmanager
def exported() -> Iterator[Path]:
    """Yield a folder with the files of the commit, and no others."""
    with TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", "--format=tar", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE
        ).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield Path(folder)


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReleasable(f"This is no checkout of a commit: {done.stderr.strip()}")
    return done.stdout.rstrip()


def main() -> None:
    """Run the command line."""
    try:
        release(standalone_mode=False)
    except NotReleasable as error:
        click.echo(f"release: {error}", err=True)
        sys.exit(1)
    except subprocess.CalledProcessError as error:
        click.echo(f"release: {' '.join(map(str, error.cmd))} failed. {_told(error)}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _told(error: subprocess.CalledProcessError) -> str:
    return error.stderr.decode(errors="replace").strip() if error.stderr else "Its words are above."


if __name__ == "__main__":
    main()
