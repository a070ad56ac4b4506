"""Kubeconfig files, as people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SECRET = "a-very-secret-token"


def write(folder: Path, url: str, name: str = "config", **user: Any) -> str:
    path = folder / name
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user or {"token": SECRET}}],
    }
    path.write_text(json.dumps(config))
    return str(path)
