"""`podidentity sandbox csi`: the Secrets Store CSI driver, and its Azure provider's stand-in."""

from __future__ import annotations

import re

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.csi.manifests import NAME, NAMESPACE, manifests
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.api import Api, Object
from podidentity_sandbox.world.applying import Applier

_SECONDS = 60
_WITHOUT_CGROUPS = (
    "Without cgroups NMI cannot tell this pod from others of the node's network. To let every "
    "root process of the node ask for pods' tokens:\n"
    "  podidentity enable --nmi-arg=--host-token=root"
)


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
    may be run again, and returns when it runs on every node.
    """
    if not re.fullmatch(r"[1-9][0-9]*(ms|s|m|h)", rotation):
        raise click.BadParameter(f'time: invalid duration "{rotation}"')
    plan = options.plan_of(name)
    api = Api(plan)
    applier = Applier(api, NAMESPACE)
    for manifest in manifests(rotation=rotation):
        click.echo(applier.apply(manifest))
    _wait(api, plan)
    if plan.rootless:
        click.echo(_WITHOUT_CGROUPS, err=True)


def _wait(api: Api, plan: Plan) -> None:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
    wanted = len(plan.nodes)

    def complete(found: Object) -> bool:
        status = found.get("status", {})
        seen = [status.get(key) for key in ("updatedNumberScheduled", "numberReady")]
        is_new: bool = status.get("observedGeneration") == found["metadata"]["generation"]
        return is_new and seen == [wanted, wanted]

    if api.wait_for(path, [NAME], complete, _SECONDS):
        raise SandboxError(
            f"the driver is not ready on every node after {_SECONDS} s; see "
            f"`podidentity sandbox get pods -n {NAMESPACE}`"
        )
