"""The bill of materials of an image, in CycloneDX 1.6: each package with its version and hash."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from email.parser import BytesHeaderParser
from typing import Any
from urllib.parse import quote

from deploy.image.contents import LIBRARIES
from deploy.image.pins import Deb, Pins, Wheel
from deploy.image.tree import Tree

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "podidentity")


def bill(
    *,
    pins: Pins,
    libraries: Mapping[str, Tree],
    version: str,
    architecture: str,
    manifest: str,
    created: str,
) -> bytes:
    """Return the bill of one architecture's image, whose manifest has the digest `manifest`.

    `libraries` are the files of each wheel by its file name.
    """
    product = {
        "type": "container",
        "bom-ref": "podidentity",
        "name": "podidentity",
        "version": version,
        "purl": f"pkg:oci/podidentity@{quote(manifest, safe='')}?arch={architecture}",
        "licenses": [{"license": {"id": "MIT"}}],
    }
    debs = [_deb(each) for each in pins.debs]
    wheels = [_wheel(each, libraries[each.file]) for each in pins.wheels]
    components = sorted([*debs, *wheels], key=lambda each: str(each["bom-ref"]))
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, manifest)}",
        "version": 1,
        "metadata": {"timestamp": created, "component": product},
        "components": components,
        "dependencies": [
            {"ref": "podidentity", "dependsOn": [each["bom-ref"] for each in components]}
        ],
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _deb(deb: Deb) -> dict[str, Any]:
    purl = (
        f"pkg:deb/debian/{quote(deb.name)}@{quote(deb.version, safe='')}"
        f"?arch={deb.architecture}&distro=debian-13"
    )
    return {
        "type": "library",
        "bom-ref": purl,
        "name": deb.name,
        "version": deb.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": deb.sha256}],
    }


def _wheel(wheel: Wheel, files: Tree) -> dict[str, Any]:
    purl = f"pkg:pypi/{wheel.name}@{wheel.version}"
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": wheel.name,
        "version": wheel.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "properties": [{"name": "podidentity:wheel", "value": wheel.file}],
    }
    licence = _licence(files)
    inside = _inside(files, purl)
    return (
        found
        | ({"licenses": [licence]} if licence else {})
        | ({"components": inside} if inside else {})
    )


def _licence(files: Tree) -> dict[str, Any] | None:
    (metadata,) = (
        file.data
        for path, file in files.items()
        if path.endswith(".dist-info/METADATA") and path.count("/") == LIBRARIES.count("/") + 2
    )
    headers = BytesHeaderParser().parsebytes(metadata)
    expression = headers["License-Expression"]
    if expression:
        return {"expression": str(expression)}
    name = headers["License"]
    return {"license": {"name": str(name)}} if name and "\n" not in name else None


def _inside(files: Tree, purl: str) -> list[dict[str, Any]]:
    """Return what a wheel says is built into it (PEP 770): OpenSSL and crates of cryptography."""
    found = {}
    for path, file in sorted(files.items()):
        if ".dist-info/sboms/" not in path or not path.endswith(".json"):
            continue
        for each in json.loads(file.data).get("components", []):
            reference = f"{purl}#{each.get('purl') or each['name']}"
            kept = ("type", "name", "version", "purl", "licenses", "hashes")
            found[reference] = {
                "bom-ref": reference,
                **{key: each[key] for key in kept if key in each},
            }
    return list(found.values())
