"""Worlds that only root can make: whoever is not root sees their tests skipped, with the reason."""

from __future__ import annotations

import os

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make this world")
AS_ROOT = pytest.param("root", marks=needs_root)
WAYS = [AS_ROOT, "rootless"]
"""As root, and as root of a user namespace only, which every user can be."""
