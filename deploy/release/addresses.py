"""The addresses of a release, filled into what it holds: no file of the repository names one.

A URL is what `--repository` says. Without it the files say that this build names no repository.
"""

from __future__ import annotations

import re
from pathlib import Path

from deploy.release.statement import NotReleasable

NONE = "This build names no repository: ask its supplier."
"""The sentence of README.md in place of an address."""
RUNBOOK = re.compile(r"(?<![\w/.])docs/how-to/watch-nmi\.md")
"""The page of the alerts, by its path in the repository; not in a link of a document."""
_URL = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?(/[\w.-]+)+")


def fill_in(source: Path, repository: str, version: str) -> None:
    """Write the addresses of a repository into the tree `source`; raise NotReleasable."""
    if not _URL.fullmatch(repository):
        raise NotReleasable(f"{repository!r} is no https:// URL of a repository.")
    files = f"{repository}/blob/v{version}"
    urls = {
        "Homepage": repository,
        "Documentation": f"{files}/docs/index.md",
        "Changelog": f"{files}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    table = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    for project in ("pyproject.toml", "sandbox/pyproject.toml"):
        path = source / project
        path.write_text(f"{path.read_text()}\n[project.urls]\n{table}")
    chart = source / "deploy/chart"
    described = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(f"{described}home: {repository}\nsources: [{repository}]\n")
    for name in ("values.yaml", "README.md", "files/alerts.yaml"):
        text, count = RUNBOOK.subn(f"{files}/docs/how-to/watch-nmi.md", (chart / name).read_text())
        if not count:
            raise NotReleasable(f"deploy/chart/{name} names no page of the alerts.")
        (chart / name).write_text(text)
    readme = source / "README.md"
    said = f"The repository is {repository}. Report faults at {repository}/issues."
    if NONE not in readme.read_text():
        raise NotReleasable(f"README.md lacks the sentence {NONE!r}.")
    readme.write_text(readme.read_text().replace(NONE, said))
