"""Helm itself, in a process of its own: a JSON request a line, a JSON answer a line.

It runs in .venvs/helm (scripts/setup-helm), which has Helm 4 as a library, the schemas of
Kubernetes' kinds, and Grafana's model of a dashboard; it imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import kubernetes_validate
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from helm_python import HelmError
from helm_python.chart import Chart, lint, package
from helm_python.config import Config


def _render(chart: str, values: dict[str, Any], **options: Any) -> dict[str, str]:
    with Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        rendered: dict[str, str] = loaded.render(values, **options)
    return rendered


def _on_cluster(action: str, kubeconfig: str, namespace: str, **options: Any) -> Any:
    with Config(kubeconfig_path=kubeconfig, namespace=namespace) as config:
        return getattr(config, action)(**options)


def _invalid(manifests: list[dict[str, Any]], version: str) -> list[str]:
    """Return what Kubernetes' own schemas say against these objects; kinds of others are passed."""
    found = []
    for each in manifests:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(map(str, error.path))
            found.append(f"{each['kind']}/{each['metadata']['name']} {place}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError:
            found.append(f"no schema: {each['kind']}")
    return found


def _as_grafana_has_it(dashboard: dict[str, Any]) -> Any:
    """Return a dashboard as Grafana's own model reads and writes it: what it knows, no more."""
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


DEEDS = {
    "render": _render,
    "lint": lint,
    "package": package,
    "on_cluster": _on_cluster,
    "invalid": _invalid,
    "as_grafana_has_it": _as_grafana_has_it,
}


def main() -> None:
    """Answer until the end of input."""
    plugins.register_default_plugins()
    for line in sys.stdin:
        what, options = json.loads(line)
        try:
            answer = {"result": DEEDS[what](**options)}
        except HelmError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
