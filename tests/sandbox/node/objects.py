"""Pods as tests write them."""

from __future__ import annotations

from typing import Any


def container(*command: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """Return a container; without a command it idles."""
    return {
        "name": name,
        "image": "none",
        **({"command": list(command)} if command else {}),
        **more,
    }


def script(text: str, **more: Any) -> dict[str, Any]:
    """Return a container that runs a shell script."""
    return container("sh", "-c", text, **more)


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a Pod; grace is short, for shells do not heed SIGTERM as process 1."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}"},
        "spec": {
            "containers": list(containers or (container(),)),
            "nodeName": "node-0",
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            **spec,
        },
    }
