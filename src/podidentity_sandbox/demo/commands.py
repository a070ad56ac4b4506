"""Pieces of the commands that chapters type, each shown and run exactly as it stands here."""

from __future__ import annotations

from collections.abc import Callable

from podidentity_sandbox.demo.story import Judgement, Step
from podidentity_sandbox.plan import IMDS_ADDRESS

_TOKEN_URL = f"http://{IMDS_ADDRESS}/metadata/identity/oauth2/token?api-version=2018-02-01"
ASK = f"curl -s -m 15 '{_TOKEN_URL}&resource=https://vault.azure.net' -H Metadata:true"


def step(
    number: str,
    name: str,
    judgement: Judgement,
    *,
    in_pod: bool = False,
    opens_pod: bool = False,
    seconds: float = 30,
) -> Callable[[str], Step]:
    """Return what makes a step of its command."""

    def with_command(command: str) -> Step:
        return Step(
            number=number,
            name=name,
            command=command.strip("\n"),
            judge=judgement,
            in_pod=in_pod,
            opens_pod=opens_pod,
            seconds=seconds,
        )

    return with_command


def pod(name: str, namespace: str, *, label: str = "", node: str = "", command: str = "") -> str:
    """Return the command that makes a pod and waits for it."""
    lines = [
        "podidentity sandbox apply --wait -f - <<EOF",
        "apiVersion: v1",
        "kind: Pod",
        f"metadata: {{name: {name}, namespace: {namespace}"
        + (f", labels: {{aadpodidbinding: {label}}}" if label else "")
        + "}",
        "spec:",
        *([f"  nodeName: {node}"] if node else []),
        "  containers:",
        "  - name: main",
        "    image: andriktr/utils:1.0.4",
        *([f"    command: {command}"] if command else []),
        "    resources:",
        "      requests: {cpu: 100m, memory: 100Mi}",
        "      limits: {cpu: 200m, memory: 300Mi}",
        "EOF",
    ]
    return "\n".join(lines)
