"""What a commit says of its version: in five files, which must agree, and in the changelog."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml


class NotReleasable(Exception):
    """Why there is no release, and what to do."""


@dataclass(frozen=True)
class Section:
    """What the changelog says of one version."""

    version: str
    date: str
    """YYYY-MM-DD, or `unreleased`."""
    text: str
    """Markdown, without its heading."""


def versions(source: Path) -> dict[str, str]:
    """Return each place of the tree `source` that states the version, and what it states."""
    product = tomllib.loads((source / "pyproject.toml").read_text())
    sandbox = tomllib.loads((source / "sandbox/pyproject.toml").read_text())
    chart = yaml.safe_load((source / "deploy/chart/Chart.yaml").read_text())
    code = (source / "src/podidentity/__init__.py").read_text()
    needed = [each for each in sandbox["project"]["dependencies"] if "podidentity==" in each]
    return {
        "pyproject.toml: version": product["project"]["version"],
        "sandbox/pyproject.toml: version": sandbox["project"]["version"],
        "sandbox/pyproject.toml: podidentity": "".join(needed).removeprefix("podidentity=="),
        "src/podidentity/__init__.py: __version__": _first(r'^__version__ = "(.*)"$', code),
        "deploy/chart/Chart.yaml: version": str(chart["version"]),
        "deploy/chart/Chart.yaml: appVersion": str(chart["appVersion"]),
    }


def agreed(source: Path, version: str) -> None:
    """Raise NotReleasable unless every place states `version`."""
    others = {place: said for place, said in versions(source).items() if said != version}
    if others:
        listed = ", ".join(f"{place} is {said or 'missing'}" for place, said in others.items())
        raise NotReleasable(f"This is not {version}: {listed}. Correct them and commit.")


def section(changelog: str, version: str) -> Section:
    """Return what a changelog says of a version; raise NotReleasable if it says nothing."""
    for part in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        found = re.fullmatch(r"(\S+)(?: \((.*)\))?", heading.strip())
        if found and found[1] == version and text.strip():
            return Section(version, found[2] or "", text.strip())
    raise NotReleasable(
        f"CHANGELOG.md says nothing of {version}: write what changed under '## {version} (DATE)'."
    )


def plain(text: str) -> str:
    """Return Markdown whose links to files of the repository are words.

    Notes are read elsewhere, where such a link leads nowhere.
    """

    def words(found: re.Match[str]) -> str:
        name, target = found[1], found[2].partition("#")[0]
        return f"{name} ({target})" if target and target not in name else name

    return re.sub(r"\[([^\]]*)\]\((?!https?:)([^)]*)\)", words, text)


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""
