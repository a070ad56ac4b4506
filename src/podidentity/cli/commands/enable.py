"""The options of `podidentity enable` and `disable`, and which of them the next `enable` keeps."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import click

from podidentity import manifests
from podidentity.cli.connection import cluster_options
from podidentity.cli.output import examples, output_option
from podidentity.cli.parameters import (
    DURATION,
    NODE_LABEL,
    TOLERATION,
    Parsed,
    agents_option,
    cloud_options,
)
from podidentity.core.data_path import Backend
from podidentity.core.flag_values import parse_taint_key


class Profile(StrEnum):
    """The kind of cluster that NMI is for."""

    STANDARD = "standard"
    AKS_AUTOMATIC = "aks-automatic"


IMAGE, FLAGS = "image", "nmi-arg"
RECORDED = {
    "types": "identity-type",
    "with_policies": "admission-policies",
    "node_tokens": "node-tokens",
    "audiences": "token-audience",
    "startup_taint": "startup-taint",
    "proxy_secret": "proxy-secret",
    "backend": "backend",
    "profile": "profile",
    "tolerations": "toleration",
    "with_aks": "aks-exception",
}
"""Parameters of `enable` that the next one keeps, and their options."""
EVERYTHING = "all"
FORGETTABLE = (EVERYTHING, IMAGE, FLAGS, *RECORDED.values())
"""What `enable --forget` takes."""


@click.command(
    epilog=examples(
        "podidentity enable",
        "podidentity enable --context staging --image registry.example.com/podidentity:0.2.0",
        "podidentity enable --namespace identity --nmi-arg=--host-token=root",
        "podidentity enable --startup-taint",
        "podidentity enable --proxy-secret podidentity-proxy",
        "podidentity enable --node-selector agentpool=canary",
        "podidentity enable --backend=lrp",
        "podidentity enable --mic --mic-arg=--cloudconfig=/etc/kubernetes/azure.json",
        "podidentity enable --profile aks-automatic --toleration=team=blue:NoSchedule",
        "podidentity enable --nmi-arg=--hold=0 --nmi-arg=--ambiguous-  # another flag, one no more",
        "podidentity enable --forget backend             # its default again, all else as it was",
        "podidentity enable --dry-run | kubectl apply -f -",
    )
)
@agents_option
@click.option(
    "--image",
    default=manifests.IMAGE,
    show_default=True,
    help="Image of NMI. ./scripts/image builds one, of the name that is the default here.",
)
@click.option(
    "--nmi-arg",
    multiple=True,
    metavar="FLAG",
    help="A flag for NMI; may be repeated. Its others stay; --nmi-arg=--FLAG- takes one back.",
)
@click.option(
    "--nmi-args",
    envvar="PODIDENTITY_NMI_ARGS",
    default="",
    metavar="FLAGS",
    show_envvar=True,
    help="Flags for NMI that this cluster always needs; those of --nmi-arg override them.",
)
@click.option(
    "--grants/--no-grants",
    default=True,
    help="The first time, grant each namespace the identities that are bound in it already.",
)
@click.option(
    "--aks-exception/--no-aks-exception",
    "with_aks",
    default=True,
    help="Let add-ons and extensions of AKS keep the node's identity.",
)
@click.option(
    "--node-tokens/--no-node-tokens",
    default=None,
    help="Have NMI ask for pods' tokens as its own node, without a right of its own. "
    "[default: from Kubernetes 1.36 on]",
)
@click.option(
    "--identity-type",
    "types",
    type=click.Choice([str(each) for each in manifests.EVERY_TYPE]),
    multiple=True,
    help="A type of AzureIdentities that NMI is to serve, as those of add --type; may be repeated. "
    "NMI has no right that others alone need: 1 and 2 secrets, 3 tokens. [default: all]",
)
@click.option(
    "--admission-policies/--no-admission-policies",
    "with_policies",
    default=None,
    help="Have the API server refuse AzureIdentities and bindings that NMI could not use, when "
    "they are written. [default: from Kubernetes 1.30 on]",
)
@click.option(
    "--token-audience",
    "audiences",
    multiple=True,
    metavar="AUDIENCE",
    help="Audience of tokens of service accounts besides Entra's; may be repeated.",
)
@click.option(
    "--startup-taint",
    is_flag=False,
    flag_value=manifests.STARTUP_TAINT,
    type=Parsed(parse_taint_key),
    metavar="[KEY]",
    help="Let NMI take the taint KEY, with which nodes start, off its own node when it is ready. "
    f"Without KEY: {manifests.STARTUP_TAINT}.",
)
@click.option(
    "--proxy-secret",
    default="",
    metavar="NAME",
    help="Secret in NMI's namespace with HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, ca-bundle.crt, or "
    "some of them: by that proxy NMI and MIC ask Azure. AKS's HTTP proxy needs none.",
)
@click.option(
    "--backend",
    type=click.Choice([each.value for each in Backend]),
    default=Backend.NFTABLES.value,
    show_default=True,
    help="What leads pods' requests to NMI: rules of the node, or, for nodes where packets pass "
    "those (eBPF host routing), a local redirect policy of Cilium as well.",
)
@click.option(
    "--profile",
    type=click.Choice([each.value for each in Profile]),
    default=Profile.STANDARD.value,
    show_default=True,
    help="Kind of cluster. AKS Automatic keeps kube-system to itself, and refuses pods that "
    "tolerate every taint.",
)
@click.option(
    "--toleration",
    "tolerations",
    type=TOLERATION,
    multiple=True,
    metavar="KEY[=VALUE][:EFFECT]",
    help="A taint of nodes on which NMI must run, besides those of the profile aks-automatic; may "
    "be repeated. The profile standard tolerates every taint.",
)
@click.option(
    "--node-selector",
    "node_labels",
    type=NODE_LABEL,
    multiple=True,
    metavar="KEY=VALUE|KEY-",
    help="Have NMI only on nodes with this label, or with KEY- on others, too; may be repeated. "
    "[default: as it is; at first each Linux node]",
)
@click.option(
    "--mic/--no-mic",
    "with_mic",
    default=None,
    help="Have MIC attach identities to the machines of the pods that need them. [default: as it "
    "is; without MIC, podidentity add attaches]",
)
@click.option(
    "--mic-arg",
    multiple=True,
    metavar="FLAG",
    help="A flag for MIC; may be repeated. [default: those that it has]",
)
@click.option(
    "--forget",
    type=click.Choice(FORGETTABLE),
    multiple=True,
    metavar="OPTION",
    help="Take back what an earlier enable was told of this option; may be repeated: "
    f"{', '.join(FORGETTABLE)}.",
)
@click.option("--wait/--no-wait", default=True, help="Wait until NMI is ready on every node.")
@click.option(
    "--timeout", type=DURATION, default="120s", show_default=True, help="How long to wait."
)
@click.option("--dry-run", is_flag=True, help="Print the objects, and apply nothing.")
@output_option("yaml", "json", default="yaml")
@cluster_options
@click.pass_context
def enable(ctx: click.Context, /, **given: Any) -> None:
    """Enable pod identity in a cluster, with NMI on every node.

    It may be run again at any time: it creates missing objects and updates old ones. Options that
    you leave out keep their values; --forget takes one back. As soon as
    NMI runs on a node, its pods get tokens only of identities that are bound to them and granted to
    their namespace.
    """
    from podidentity.cli.enable import enable as run

    run(ctx, **given)


@click.command(epilog=examples("podidentity disable", "podidentity disable --purge --yes"))
@click.option(
    "--keep-crds/--purge",
    default=True,
    help="Keep the custom resources (default), or delete them with all identities and bindings.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--timeout", type=DURATION, default="60s", show_default=True, help="How long to wait."
)
@click.option(
    "--detach",
    is_flag=True,
    help="Detach from the machines what MIC attached, by its ledgers. What podidentity add "
    "attached podidentity delete detaches.",
)
@cloud_options
@agents_option
@cluster_options
def disable(**given: Any) -> None:
    """Remove NMI, and MIC if it is there, from a cluster.

    It may be run where NMI is gone already, and takes away what is left. The nodes keep their
    rules, so pods get no token at all: the node's own identities stay closed to them. A restart of
    the node removes the rules, and so does NMI itself with --on-exit=remove. A namespace that
    `enable` made is kept.
    """
    from podidentity.cli.enable import disable as run

    run(**given)
