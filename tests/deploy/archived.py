"""A release of the archived chart 4.1.18, as it stands in clusters: what a take-over begins with.

The chart itself is not here. `archived_chart` is true to its contract: names, selectors, values.
Its custom resources come without an owner, because they are in the chart's folder `crds`.
https://github.com/Azure/aad-pod-identity/tree/v1.8.17/charts/aad-pod-identity
"""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from podidentity import manifests
from tests.cli.world import World

_HERE = Path(__file__).parent
KINDS = [each for each in manifests.crds() if "ledgers" not in each["metadata"]["name"]]
"""Our definitions of its four kinds."""
SELECTED = "app.kubernetes.io/managed-by"

Named = tuple[str, str, str]
"""Kind, namespace ("" without one) and name."""


def definition(crd: Any, *, edited: bool = False) -> Any:
    """Return a definition as the archived chart left it: no release's, and without what we add."""
    found = json.loads(json.dumps(crd))
    found["metadata"]["labels"] = {SELECTED: "Helm"}
    version = found["spec"]["versions"][0]
    version.pop("subresources", None)
    fields = version["schema"]["openAPIV3Schema"]["properties"]
    for added in ("objectID", "federation", "azureIdentities"):
        fields["spec"]["properties"].pop(added, None)
    fields["status"]["properties"].pop("conditions", None)
    if edited:
        found["metadata"]["annotations"]["example.com/mine"] = "kept"
        version["additionalPrinterColumns"] = [
            {"name": "Mine", "type": "string", "jsonPath": ".spec.clientID"}
        ]
        fields["spec"]["description"] = "ours"
    return found


def chart(folder: Path) -> Path:
    """Make the stand-in for the chart in a folder; return where it is."""
    made = folder / "aad-pod-identity"
    shutil.copytree(_HERE / "archived_chart", made)
    shutil.copy(_HERE / "old_values/defaults-4.1.18.yaml", made / "values.yaml")
    (made / "crds").mkdir()
    text = yaml.safe_dump_all(definition(each) for each in KINDS)
    (made / "crds/crd.yaml").write_text(text)
    return made


def runs(made: Path, program: Path) -> None:
    """Have NMI of the chart at `made` be this program of the machine."""
    path = made / "templates/objects.yaml"
    text = path.read_text()
    where = json.dumps(str(program))
    for before, more in (
        ("        - name: nmi\n", f"          command: [{where}]\n"),
        ("          volumeMounts:\n", f"            - {{name: program, mountPath: {where}}}\n"),
        ("      volumes:\n", f"        - {{name: program, hostPath: {{path: {where}}}}}\n"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, before + more)
    path.write_text(text)


def recorded_by_helm_3(world: World, namespace: str, release: str) -> None:
    """Have the record of the first revision say what Helm 3 left: it did not apply on the server.

    Helm goes on as a release was begun.
    """
    path = f"/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.{release}.v1"
    packed = base64.b64decode(base64.b64decode(world.get(path)["data"]["release"]))
    record = json.loads(gzip.decompress(packed))
    assert record.pop("apply_method") == "ssa"
    written = base64.b64encode(gzip.compress(json.dumps(record).encode()))
    data = {"release": base64.b64encode(written).decode()}
    world.send("PATCH", path, {"data": data})


def live(world: World, manifest: str) -> dict[Named, Any]:
    """Return the objects of a release's manifest that are in the cluster."""
    found, known = {}, dict[str, dict[str, Any]]()
    for each in yaml.safe_load_all(manifest):
        if not each:
            continue
        version = each["apiVersion"]
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if version not in known:
            resources = world.get(prefix)["resources"]
            known[version] = {kind["kind"]: kind for kind in resources if "/" not in kind["name"]}
        kind = known[version][each["kind"]]
        name = each["metadata"]["name"]
        namespace = each["metadata"].get("namespace", "") if kind["namespaced"] else ""
        place = f"{prefix}/namespaces/{namespace}" if namespace else prefix
        there = world.get(f"{place}/{kind['name']}/{name}")
        if there is not None:
            found[each["kind"], namespace, name] = there
    return found


def said(objects: dict[Named, Any]) -> dict[Named, Any]:
    """Return what these objects say, without what the API server notes of them."""
    return {
        named: {key: value for key, value in each.items() if key not in {"metadata", "status"}}
        for named, each in objects.items()
    }
