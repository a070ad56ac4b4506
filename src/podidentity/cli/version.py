"""`podidentity version`: which release this is, of which commit, from which build.

The recipe of the image writes the commit and the build beside the package. Where it did not, as in
a checkout, both are unknown: nothing is guessed from what lies around.
"""

from __future__ import annotations

import json
import platform
from importlib.resources import files

import click

from podidentity import __version__
from podidentity.cli.output import data, examples, output_option, table

RECORD = "build.json"
"""Beside the package's modules: {"commit": …, "build": …}."""


@click.command(epilog=examples("podidentity version", "podidentity version -o json"))
@output_option("table", "json", "yaml", default="table")
def version(*, output: str) -> None:
    """Print the version, the commit and the build of this program."""
    found = facts()
    if output == "table":
        head, *rows = found.items()
        click.echo(table(("podidentity", head[1]), rows))
    else:
        click.echo(data(found, output))


def facts() -> dict[str, str]:
    """Return version, commit, build, and the Python and machine that run it."""
    record = files("podidentity").joinpath(RECORD)
    made = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    return {
        "version": __version__,
        "commit": made.get("commit", "unknown"),
        "build": made.get("build", "unknown"),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
