"""The bill of materials of a wheel, in CycloneDX 1.6: the libraries that it was tested with.

A wheel names ranges; what a release was tested with are the pins of requirements/. They say of each
library who needs it, and so which of them are the product's and which the sandbox's.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PRODUCT, SANDBOX = "podidentity", "podidentity-sandbox"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "podidentity")


@dataclass(frozen=True)
class Pin:
    """A library of requirements/*.txt."""

    name: str
    version: str
    marker: str
    """Where it is installed (PEP 508), "" for everywhere."""
    hashes: tuple[str, ...]
    """SHA-256 of each of its files."""
    needed_by: frozenset[str]

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def pins(text: str) -> dict[str, Pin]:
    """Return the libraries of a file of pins, as `uv export` writes it, by name."""
    found = {}
    for entry in re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.MULTILINE):
        if not re.match(r"[a-zA-Z0-9]", entry):
            continue
        requirement = Requirement(entry.partition("\\")[0].strip())
        (version,) = (each.version for each in requirement.specifier)
        name = str(canonicalize_name(requirement.name))
        via = re.findall(r"^ +#(?: via)? +([a-z0-9][a-z0-9._-]*)", entry, re.MULTILINE)
        found[name] = Pin(
            name=name,
            version=version,
            marker=str(requirement.marker or ""),
            hashes=tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))),
            needed_by=frozenset(via) - {"via"},
        )
    return found


def needed(all_pins: Mapping[str, Pin], root: str) -> dict[str, Pin]:
    """Return those that `root` needs, or one of them."""
    kept: dict[str, Pin] = {}
    while True:
        more = {
            name: pin
            for name, pin in all_pins.items()
            if name not in kept and pin.needed_by & {root, *kept}
        }
        if not more:
            return kept
        kept |= more


def of_distribution(source: Path, name: str) -> dict[str, Pin]:
    """Return the libraries of a distribution of the tree `source`."""
    product = pins((source / "requirements/product.txt").read_text())
    if name == PRODUCT:
        return product
    # In the pins of development `podidentity` has its extra for people at a shell as well.
    return needed(pins((source / "requirements/dev.txt").read_text()), name) | product


def bill(digest: str, *, source: Path, name: str, version: str, when: str) -> bytes:
    """Return the bill of the wheel with the SHA-256 `digest`; `when` is its time (RFC 3339)."""
    libraries = of_distribution(source, name)
    itself: dict[str, Any] = {
        "type": "application",
        "bom-ref": name,
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": [{"license": {"id": "MIT"}}],
    }
    components = [_component(each) for _, each in sorted(libraries.items())]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {"timestamp": when, "component": itself},
        "components": components,
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(_direct(libraries, names))}
            for ref, names in (
                (name, {name, PRODUCT}),
                *((each.purl, {each.name}) for _, each in sorted(libraries.items())),
            )
        ],
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _direct(libraries: Mapping[str, Pin], names: set[str]) -> list[str]:
    return [each.purl for each in libraries.values() if each.needed_by & names]


def _component(pin: Pin) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
        "properties": [
            *({"name": "podidentity:marker", "value": each} for each in [pin.marker] if each),
            *({"name": "podidentity:sha256", "value": each} for each in pin.hashes),
        ],
    }
