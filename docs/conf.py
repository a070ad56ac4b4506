"""How the site is built: `./scripts/docs`.

The pages are Markdown that is read in the repository as well, so nothing but the table of contents
is Sphinx's own. The source is the whole repository: pages lie beside what they are about.
"""

import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[1]

project = "podidentity"
release = version = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]
copyright = "the authors of podidentity, MIT licence"

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/*/*.md",
    "*.md",
    "deploy/chart/README.md",
    "examples/walkthrough/README.md",
    "extensions/podidentity_az/README.md",
    "sandbox/README.md",
]
exclude_patterns = ["dist", ".venv", ".venvs", ".cache"]

# Anchors as GitHub makes them, so that a link works in both places.
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "podidentity"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
