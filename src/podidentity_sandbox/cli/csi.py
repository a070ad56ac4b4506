"""`podidentity sandbox csi`: the Secrets Store CSI driver, and its Azure provider's stand-in."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import click
import yaml

from podidentity_sandbox.cli import options
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.api import MERGE_PATCH, Api, ApiError, Object
from podidentity_sandbox.world.apply import Applier

NAMESPACE, NAME = "kube-system", "csi-secrets-store-provider-azure"

_DAEMON_SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
_SECONDS = 60
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_NMI = "nmi"
_FLAG = "--host-token=root"
_WHY = f"without cgroups, NMI knows its callers on the node only by their user: {_FLAG}"


@click.command(epilog="Example: podidentity sandbox csi --rotation-poll-interval 10s")
@options.name
@click.option(
    "--rotation-poll-interval",
    "rotation",
    default="2m",
    show_default=True,
    help="How often mounted secrets are read again.",
)
def csi(name: str, *, rotation: str) -> None:
    """Install the Secrets Store CSI driver with the Azure Key Vault provider.

    Pods may then mount secrets as files, with a SecretProviderClass that says usePodIdentity. It
    may be run again, and returns when it runs on every node. In a sandbox without root it lets
    NMI, which must be there, serve every root process of a node.
    """
    written = re.fullmatch(r"([1-9][0-9]*)(ms|s|m|h)", rotation)
    if written is None:
        raise click.BadParameter(f'time: invalid duration "{rotation}"')
    plan = options.plan_of(name)
    api = Api(plan)
    applier = Applier(api, NAMESPACE)
    for manifest in manifests(int(written[1]) * _UNITS[written[2]]):
        click.echo(applier.apply(manifest))
    _wait(api, plan, NAME)
    if plan.rootless:
        _let_root_ask(api, plan)


def _let_root_ask(api: Api, plan: Plan) -> None:
    try:
        nmi = api.request("GET", f"{_DAEMON_SETS}/{_NMI}")
    except ApiError as error:
        if error.code != 404:
            raise
        click.echo(f"{_WHY}\n  podidentity enable --nmi-arg={_FLAG}", err=True)
        return
    containers = nmi["spec"]["template"]["spec"]["containers"]
    if _FLAG not in containers[0]["args"]:
        containers[0]["args"].append(_FLAG)
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        api.request("PATCH", f"{_DAEMON_SETS}/{_NMI}", patch, content_type=MERGE_PATCH)
        click.echo(f"daemonset.apps/{_NMI} configured ({_WHY})")
        _wait(api, plan, _NMI)


def _wait(api: Api, plan: Plan, name: str) -> None:
    """Return when the DaemonSet is as it should be on every node; raise SandboxError."""
    wanted = len(plan.nodes)

    def complete(found: Object) -> bool:
        status = found.get("status", {})
        seen = [status.get(key) for key in ("updatedNumberScheduled", "numberReady")]
        is_new: bool = status.get("observedGeneration") == found["metadata"]["generation"]
        return is_new and seen == [wanted, wanted]

    if api.wait_for(_DAEMON_SETS, [name], complete, _SECONDS):
        raise SandboxError(
            f"DaemonSet {name} is not ready on every node after {_SECONDS} s; see "
            f"`podidentity sandbox get pods -n {NAMESPACE}`"
        )


def manifests(seconds: float) -> list[dict[str, Any]]:
    """Return the objects that install the driver, in the order to create them, the DaemonSet last.

    Volumes are read again each so many `seconds`.
    """
    text = files("podidentity_sandbox.csi").joinpath("manifests.yaml").read_text(encoding="utf-8")
    found = list(yaml.safe_load_all(text))
    (container,) = found[-1]["spec"]["template"]["spec"]["containers"]
    container["args"] = [f"--rotation-poll-interval={seconds:g}"]
    return found
