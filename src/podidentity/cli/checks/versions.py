"""Whether the programs of a cluster, its custom resources and this command are of one version.

The version of a program is the tag of its image; one that is named by a digest alone says none. A
CustomResourceDefinition has no version of ours: what counts is whether it knows each field that our
programs read, because the API server drops the others from what people apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from podidentity.cli.checks.findings import CheckReason, Finding, Severity, named
from podidentity.cli.objects import Object, ref_of
from podidentity.core.resources import ObjectRef

_TAG = re.compile(r":v?([0-9]+\.[0-9]+(?:\.[0-9]+)?(?:[-.][0-9A-Za-z.-]+)?)(?:@|$)")


def version_of(workload: Object) -> str:
    """Return the version of a DaemonSet's or Deployment's image; "" if it says none."""
    containers = workload["spec"]["template"]["spec"]["containers"]
    return version_of_image(containers[0].get("image", ""))


def version_of_image(image: str) -> str:
    """Return the version in an image's tag; "" if it says none."""
    found = _TAG.search(image)
    return found[1] if found else ""


def told(cli: str, workloads: Sequence[Object]) -> str:
    parts = [f"podidentity {cli}"]
    for each in workloads:
        chart = (each["metadata"].get("labels") or {}).get("helm.sh/chart", "")
        of = f", of chart {chart}" if chart else ""
        parts.append(f"{each['kind']} {ref_of(each)} {version_of(each) or 'unknown'}{of}")
    return "; ".join(parts)


def differing(cli: str, workloads: Sequence[Object]) -> Iterator[Finding]:
    for each in workloads:
        version = version_of(each)
        if version and version != cli:
            yield Finding(
                kind=each["kind"],
                about=ref_of(each),
                reason=CheckReason.VERSIONS,
                what=f"It is of version {version}, and this command of {cli}: it judges by other "
                "rules, and reads other flags, than those that are in force.",
                mend="Use the command of the same version, or update the cluster: podidentity "
                "enable, or helm upgrade where it is a release.",
                severity=Severity.WARNING,
            )


def definitions(ours: Sequence[Object], found: Mapping[str, Object | None]) -> Iterator[Finding]:
    """Yield what the cluster's definitions of our kinds lack; `found` has them by name."""
    for wanted in ours:
        name = wanted["metadata"]["name"]
        there = found.get(name)
        if there is None:
            yield _of_definition(
                name, CheckReason.NO_DEFINITION, "It is not there.", Severity.ERROR
            )
            continue
        served = {each["name"]: each for each in there["spec"]["versions"] if each.get("served")}
        (version,) = wanted["spec"]["versions"]
        if version["name"] not in served:
            what = f"It does not serve version {version['name']}."
            yield _of_definition(name, CheckReason.NO_DEFINITION, what, Severity.ERROR)
        elif fields := sorted(_unknown(_schema(version), _schema(served[version["name"]]))):
            yield _of_definition(
                name,
                CheckReason.OLD_DEFINITION,
                f"It does not know {named(fields, 'fields')}: the API server drops them from what "
                "people apply. It is of AAD Pod Identity, of another version, or was edited.",
                Severity.WARNING,
            )


def _of_definition(name: str, reason: CheckReason, what: str, severity: Severity) -> Finding:
    return Finding(
        kind="CustomResourceDefinition",
        about=ObjectRef("", name),
        reason=reason,
        what=what,
        mend="Run podidentity enable: it brings the definition up to date, and objects stay.",
        severity=severity,
    )


def _schema(version: Object) -> Object:
    found: Object = version.get("schema", {}).get("openAPIV3Schema", {})
    return found


def _unknown(ours: Object, theirs: Object, path: str = "") -> Iterator[str]:
    """Yield the paths of the fields that ours has and theirs would drop."""
    if theirs.get("x-kubernetes-preserve-unknown-fields"):
        return
    if "items" in ours and "items" in theirs:
        yield from _unknown(ours["items"], theirs["items"], path)
    known = theirs.get("properties") or {}
    for name, each in (ours.get("properties") or {}).items():
        where = f"{path}.{name}" if path else name
        if name in known:
            yield from _unknown(each, known[name], where)
        elif name not in {"apiVersion", "kind", "metadata"} or path:
            yield where
