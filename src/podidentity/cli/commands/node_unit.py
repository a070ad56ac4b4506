"""`podidentity node-unit`: what closes the metadata service on a node before its kubelet starts."""

from __future__ import annotations

import re

import click

from podidentity.cli.output import examples
from podidentity.cli.parameters import Parsed
from podidentity.manifests import KUBELET_UNIT, boot_unit

_UNIT = re.compile(r"[A-Za-z0-9:_.@-]+\.service")


def _parse_unit(text: str) -> str:
    if not _UNIT.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a unit such as k3s-agent.service")
    return text


@click.command(
    epilog=examples(
        "podidentity node-unit > /etc/systemd/system/podidentity-boot.service",
        "podidentity node-unit --kubelet-unit k3s-agent.service",
    )
)
@click.option(
    "--kubelet-unit",
    type=Parsed(_parse_unit),
    default=KUBELET_UNIT,
    show_default=True,
    metavar="NAME",
    help="The unit that starts the kubelet on the node.",
)
def node_unit(*, kubelet_unit: str) -> None:
    """Print a systemd unit that keeps pods from IMDS until NMI is up.

    A node that restarts starts its pods again at once, and NMI a moment later. The unit has nft
    drop what pods send to 169.254.169.254; the node itself and pods of its network are not
    concerned, and NMI works above it. Its first lines say how it is installed and removed.
    """
    click.echo(boot_unit(kubelet_unit), nl=False)
