"""`podidentity check`: what is wrong in a cluster, from the custom resources to its nodes.

Groups of checks appear as they are done. Each finding says what is wrong with which object, the
next step, and where the documentation says more. What makes them is imported when it runs
(`checks.looking`): help is not to wait for an HTTP client.
"""

from __future__ import annotations

from pathlib import Path

import click

from podidentity.cli import completing
from podidentity.cli.connection import ClusterTarget, cluster_options, on_cluster
from podidentity.cli.output import FORMATS, data, examples, output_option
from podidentity.cli.parameters import agents_option, cloud_options
from podidentity.core.authorities import Cloud


@click.command(
    epilog=examples(
        "podidentity check",
        "podidentity check -o json | jq -r '.[].switch'",
        "podidentity check shop",
        "podidentity check --pre",
        "podidentity check --bundle ticket.tar.gz",
    )
)
@click.argument("namespace", required=False, shell_complete=completing.namespaces)
@click.option(
    "--azure",
    "ask",
    is_flag=True,
    help="Ask Azure for identities of machines, federated credentials and MIC's roles, too.",
)
@click.option("--probes", is_flag=True, help="Ask each NMI about its node, too.")
@click.option("--pre", is_flag=True, help="Look at a cluster before NMI is in it.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write an archive (tar.gz) for a support ticket, too, without secrets.",
)
@agents_option
@output_option(*FORMATS, default="table")
@cloud_options
@cluster_options
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    target: ClusterTarget,
    namespace: str | None,
    ask: bool,
    cloud: Cloud | None,
    probes: bool,
    pre: bool,
    bundle: Path | None,
    agents: str | None,
    output: str,
) -> None:
    """Find what is wrong in a cluster, and say what to do.

    Each check is a line, and each finding has its next step and an entry of the documentation: what
    the rules refuse, with the flag of NMI that would allow it; pods that get no token; where NMI is
    not ready, or weaker than it could be; nodes without it. Before `enable` it shows the effects of
    an upgrade; afterwards it judges by NMI's own flags.
    With a NAMESPACE it looks at that alone, for which the rights of a namespace suffice.
    With `--bundle` no Secret is read, so it is not known whether credentials can be used.
    Exit code 1: something is wrong, or you may not read all of it. Warnings alone: 0.
    """
    more = bundle or probes or ask
    if (pre and (namespace or more)) or (namespace and more):
        raise click.UsageError("Give one of NAMESPACE, --pre, and --azure, --bundle or --probes.")
    from podidentity.cli.checks import bundle as archives
    from podidentity.cli.checks import looking, printing
    from podidentity.cli.checks.reading import ReadOnce

    if bundle is not None:
        archives.refuse(bundle)
    wanted = looking.MoreChecks(bundle=bundle, probes=probes, azure=ask, cloud=cloud)
    found = on_cluster(
        target,
        lambda kube: (
            looking.before(kube, agents, output)
            if pre
            else looking.of_namespace(kube, namespace, agents, output)
            if namespace
            else looking.after(wanted, kube, agents, output)
        ),
        kind=ReadOnce,
    )
    if output == "table":
        click.echo(printing.summary([each for _, each in found]))
    else:
        click.echo(data([printing.plain(group.title, each) for group, each in found], output))
    ctx.exit(1 if any(looking.is_wrong(each) for _, each in found) else 0)
