"""The cluster on which the manifests that we ship are judged: the sandbox's, by its fixtures."""

from __future__ import annotations

from tests.sandbox.cluster.conftest import api, folder, newest, served

__all__ = ["api", "folder", "newest", "served"]
