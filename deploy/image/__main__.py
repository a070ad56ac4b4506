"""`./scripts/image`: builds the image, and writes it with its bill of materials."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import click

from deploy.image import oci
from deploy.image.contents import LIBRARIES, PLATFORMS, STANDARD_LIBRARY
from deploy.image.packages import Gone, Missing, need_programs, newest_debs, newest_wheels
from deploy.image.pins import Pins, Stale, wanted, write
from deploy.image.recipe import ROOT, Built, build, source_of
from deploy.image.trial import try_out


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=ROOT / "dist/image",
    help="Folder for the archive and the bills of materials.  [default: dist/image]",
)
@click.option(
    "--name",
    metavar="NAME:TAG",
    help="What the image is called once imported.  [default: localhost/podidentity:VERSION]",
)
@click.option(
    "--build",
    "build_name",
    default="local",
    show_default=True,
    metavar="WORD",
    help="What `podidentity version` calls this build, as the number of a pipeline's run.",
)
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Archive of Debian's packages, in place of those of this machine's apt; may be repeated.",
)
@click.option(
    "--renew-pins", is_flag=True, help="Write pins of today's packages, and build nothing."
)
@click.option(
    "--try",
    "tried",
    is_flag=True,
    help="Run the command of each image; that of the other architecture in an emulator.",
)
@click.option(
    "--or-newest",
    is_flag=True,
    help="If a pinned package is gone, build of today's packages, and say so: for tests.",
)
@click.option(
    "--bytecode/--no-bytecode",
    default=True,
    help="Compile, as a release does. Without, each start of the agent compiles: for tests.",
)
@click.option(
    "--pins",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent,
    help="Folder of the pins.  [default: deploy/image]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=ROOT / ".cache/image",
    help="Folder for what is fetched and compiled.  [default: .cache/image]",
)
def image(
    *,
    output: Path,
    name: str | None,
    build_name: str,
    mirrors: tuple[str, ...],
    renew_pins: bool,
    tried: bool,
    or_newest: bool,
    bytecode: bool,
    pins: Path,
    cache: Path,
) -> None:
    """Build the image of amd64 and arm64 from the pinned packages, as an OCI archive."""
    need_programs()
    if renew_pins:
        renew(pins, cache, mirrors)
        return
    source = source_of(build_name)
    made = partial(build, source, cache=cache, mirrors=mirrors, bytecode=bytecode)
    try:
        built = made(pins=pins)
    except Gone as error:
        if not or_newest:
            raise
        click.echo(f"image: {error}\nimage: building of today's packages", err=True)
        renew(cache / "newest", cache, mirrors)
        built = made(pins=cache / "newest")
    output.mkdir(parents=True, exist_ok=True)
    archive = output / f"podidentity-{source.version}.tar"
    digest = oci.write_archive(
        archive,
        [each.image for each in built],
        name=name or f"localhost/podidentity:{source.version}",
    )
    for each in built:
        place = output / f"podidentity-{source.version}-{each.image.architecture}.cdx.json"
        place.write_bytes(each.bill)
    for each in built:
        show(each)
    for each in built if tried else []:
        click.echo(f"\n{each.image.architecture} ran: {json.dumps(try_out(each, cache))}")
    click.echo(f"\n{archive}  {digest}")


def renew(folder: Path, cache: Path, mirrors: tuple[str, ...]) -> None:
    """Write the pins of all architectures anew."""
    requirements = (ROOT / "requirements/product.txt").read_text()
    for architecture in PLATFORMS:
        debs = newest_debs(architecture, mirrors)
        wheels = newest_wheels(wanted(requirements, architecture), architecture, cache)
        click.echo(write(folder, architecture, Pins(tuple(debs), tuple(wheels))))


_SMALL = 2**18
"""Parts of fewer bytes than this share a line of the table."""


def show(built: Built) -> None:
    """Print what is in an image, by size."""
    image = built.image
    plain = sum(len(each.plain) for each in image.layers)
    packed = sum(len(each.packed) for each in image.layers)
    click.echo(f"\n{image.architecture}: {_sizes(plain, packed)}")
    for each in image.layers:
        click.echo(f"  layer {each.name}: {_sizes(len(each.plain), len(each.packed))}")
    sizes: Counter[str] = Counter()
    for path, file in built.tree.items():
        sizes[part(path)] += len(file.data)
    large = {name: size for name, size in sizes.items() if size > _SMALL}
    for name, size in sorted(large.items(), key=lambda item: -item[1]):
        click.echo(f"  {size / 2**20:6.1f} MiB  {name}")
    others = sum(sizes.values()) - sum(large.values())
    click.echo(f"  {others / 2**20:6.1f} MiB  {len(sizes) - len(large)} smaller parts")


def _sizes(plain: int, packed: int) -> str:
    return f"{plain / 2**20:.1f} MiB unpacked, {packed / 1e6:.1f} MB compressed"


def part(path: str) -> str:
    """Return of what part of the image a file is, for the table of sizes."""
    if path.startswith(f"{LIBRARIES}/"):
        name = path.removeprefix(f"{LIBRARIES}/").split("/")[0].split("-")[0].split(".")[0]
        return f"library {name.lstrip('_')}"
    if path.startswith(STANDARD_LIBRARY):
        return "Python's library"
    name = path.split("/")[-1]
    if "/lib/" in f"/{path}" and ".so" in name:
        stem = name.split(".so")[0]
        large = ("libcrypto", "libc", "libssl", "libm", "libnftables", "libgmp", "libpython")
        return f"Debian's {stem}" if stem in large else "other libraries of Debian"
    if path.startswith("usr/bin/python"):
        return "Python"
    return "the rest: licences, certificates, settings"


def main() -> None:
    """Run the command line."""
    try:
        image(standalone_mode=False)
    except (Missing, Stale) as error:
        click.echo(f"image: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


main()
