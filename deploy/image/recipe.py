"""From pins and a commit to images: the recipe, step by step."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.image import oci
from deploy.image.contents import LIBRARIES, PLATFORMS
from deploy.image.own_python import OwnPython, this_architecture
from deploy.image.packages import fetch_debs, fetch_wheels
from deploy.image.pins import check, read
from deploy.image.sbom import bill
from deploy.image.tree import File, Tree, joined, of_deb, of_wheel
from deploy.image.tree import without_what_is_not_needed as needed
from podidentity.settings import SERVE_UID

ROOT = Path(__file__).parents[2]

SETTINGS = {
    "Entrypoint": ["podidentity"],
    "Env": ["PATH=/usr/local/bin:/usr/bin"],
    # As the manifest runs `serve`; it makes `net` root.
    "User": f"{SERVE_UID}:{SERVE_UID}",
    "WorkingDir": "/",
}

PROGRAM = """#!/usr/bin/python3 -I
import sys
from podidentity.cli.main import main
sys.exit(main())
"""


_MADE_OF = (
    *("src/podidentity", "pyproject.toml", "README.md", "LICENSE"),
    *("deploy/image", "requirements/product.txt"),
)


@dataclass(frozen=True)
class Source:
    """What of the product an image is made of."""

    version: str
    commit: str
    """With `-dirty` if files differ from it; `unknown` outside of a git checkout."""
    build: str
    """What the builder calls this build: the number of a pipeline's run, or `local`."""
    created: str
    """The commit's time; SOURCE_DATE_EPOCH overrides it. RFC 3339."""


@dataclass(frozen=True)
class Built:
    """An image, what it holds, and its bill of materials."""

    image: oci.Image
    tree: Tree
    bill: bytes


def source_of(build: str) -> Source:
    """Return what this checkout holds."""
    text = (ROOT / "src/podidentity/__init__.py").read_text()
    version = re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)[0]
    commit = _git("rev-parse", "HEAD") or "unknown"
    if _git("status", "--porcelain", "--", *_MADE_OF):
        commit += "-dirty"
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or 0)
    when = datetime.datetime.fromtimestamp(epoch, datetime.UTC)
    return Source(version, commit, build, when.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def build(
    source: Source, *, pins: Path, cache: Path, mirrors: Sequence[str], bytecode: bool = True
) -> list[Built]:
    """Return the images of all architectures; without `bytecode` they have sources instead."""
    requirements = (ROOT / "requirements/product.txt").read_text()
    all_pins = {each: read(pins, each) for each in PLATFORMS}
    for architecture, its in all_pins.items():
        check(its, requirements, architecture)
    debian = {
        each: joined(map(of_deb, fetch_debs(its.debs, cache, mirrors)))
        for each, its in all_pins.items()
    }
    wheels = {
        each: {path.name: of_wheel(path) for path in fetch_wheels(its.wheels, each, cache)}
        for each, its in all_pins.items()
    }
    product = product_tree(source)
    with TemporaryDirectory() as folder:
        own = OwnPython(debian[this_architecture()], Path(folder), cache / "made")
        made = []
        for architecture, its in all_pins.items():
            trees = {
                "Debian": needed(debian[architecture]) | system_files(debian[architecture]),
                "libraries": needed(joined(wheels[architecture].values())),
                "podidentity": needed(product),
            }
            compiled = {n: own.compile(tree) for n, tree in trees.items()} if bytecode else trees
            image = _image(architecture, compiled, source, own)
            its_bill = bill(
                pins=its,
                libraries=wheels[architecture],
                version=source.version,
                architecture=architecture,
                manifest=oci.sha256(image.manifest),
                created=source.created,
            )
            made.append(Built(image, joined(compiled.values()), its_bill))
    return made


def _image(architecture: str, trees: dict[str, Tree], source: Source, own: OwnPython) -> oci.Image:
    layers: list[oci.Layer] = []
    for name, tree in trees.items():
        plain = oci.layer_tar(tree, base=not layers)
        layers.append(oci.Layer(name, plain, own.compress(plain)))
    return oci.image(
        architecture,
        layers,
        settings=SETTINGS,
        created=source.created,
        labels=labels(source),
    )


def labels(source: Source) -> dict[str, str]:
    """Return what the image says of itself, in the words of the OCI."""
    of = "org.opencontainers.image."
    return {
        f"{of}title": "podidentity",
        f"{of}description": "Identity for pods on Azure: NMI, the agent of each node",
        f"{of}version": source.version,
        f"{of}revision": source.commit,
        f"{of}created": source.created,
        f"{of}licenses": "MIT",
    }


def product_tree(source: Source) -> Tree:
    """Return what the product's wheel installs, its command, and which build it is."""
    with TemporaryDirectory() as folder:
        subprocess.run(
            [*(sys.executable, "-m", "hatchling", "build"), "--target", "wheel", "-d", folder],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        (wheel,) = Path(folder).glob("*.whl")
        tree = of_wheel(wheel)
    made = {"commit": source.commit, "build": source.build}
    return tree | {
        f"{LIBRARIES}/podidentity/build.json": File(json.dumps(made).encode() + b"\n"),
        "usr/local/bin/podidentity": File(PROGRAM.encode(), 0o755),
    }


def system_files(debian: Tree) -> Tree:
    """Return what scripts of Debian's packages would make when they are configured."""
    bundle = b"".join(
        file.data
        for path, file in sorted(debian.items())
        if path.startswith("usr/share/ca-certificates/") and path.endswith(".crt")
    )
    passwd = f"root:x:0:0::/:/none\npodidentity:x:{SERVE_UID}:{SERVE_UID}::/:/none\n"
    return {
        "etc/ssl/certs/ca-certificates.crt": File(bundle),
        "usr/lib/ssl/cert.pem": File(b"", 0o777, "/etc/ssl/certs/ca-certificates.crt"),
        "etc/passwd": File(passwd.encode()),
        "etc/group": File(f"root:x:0:\npodidentity:x:{SERVE_UID}:\n".encode()),
        "etc/nsswitch.conf": File(b"passwd: files\ngroup: files\nhosts: files dns\n"),
        "usr/bin/python3": File(b"", 0o777, "python3.13"),
        "var/run": File(b"", 0o777, "/run"),
    }
