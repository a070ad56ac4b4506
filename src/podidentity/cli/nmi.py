"""`podidentity nmi`: the node agent's flags.

All flags of the archived project are accepted, so that its manifests need no change; what has no
effect (yet) says so in its help. Bare booleans (`--forceNamespaced`) and `--flag=false` both
work, as with pflag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from podidentity.cli.authorization_flags import authorization_flags
from podidentity.cli.entra_flags import entra_flags, entra_settings
from podidentity.cli.old_flags import Verbosity, boolean, old_flags
from podidentity.cli.parameters import PodRef
from podidentity.cli.prefetch_flag import prefetch_flag
from podidentity.cli.rules_flags import rules_flags, rules_settings
from podidentity.cli.wording import examples
from podidentity.settings import NmiSettings

_OPERATION_MODES = ("standard", "managed")


@click.command(
    epilog=examples("podidentity nmi --node=$(NODE_NAME) --operation-mode=managed"),
    context_settings={"max_content_width": 100},
)
@click.option("--node", default="", help="Name of this node. Needed.")
@click.option(
    "--operation-mode",
    default="standard",
    show_default=True,
    help="managed: identities are attached to the node's machines already. standard: a controller "
    "attaches them and says so by AzureAssignedIdentities; requests wait for it.",
)
@boolean(
    "--forceNamespaced",
    "force_namespaced",
    envvar="FORCENAMESPACED",
    text="Always so, unless --compat-cross-namespace: pod, binding and identity share a namespace.",
)
@click.option("--nmi-listen-address", "listen_address", default="127.0.0.1", show_default=True)
@click.option("--nmi-port", "listen_port", type=int, default=2579, show_default=True)
@click.option("--metadata-ip", "metadata_address", default="169.254.169.254", show_default=True)
@click.option("--metadata-port", type=int, default=80, show_default=True)
@click.option(
    "--http-probe-port",
    "probe_port",
    type=int,
    default=8080,
    show_default=True,
    help="Port of /healthz and /readyz, on all addresses.",
)
@boolean(
    "--metadata-header-required", default=True, text="Refuse requests without 'Metadata: true'."
)
@boolean("--block-instance-metadata", text="Refuse /metadata/instance.")
@boolean(
    "--set-retry-after-header",
    "retry_after_header",
    text="Where nothing is bound, answer 503 with Retry-After, not 404.",
)
@click.option(
    "--metadata-allow",
    multiple=True,
    metavar="PATH",
    help="A metadata path that pods may read, with all below it; may be repeated. Default: "
    "/metadata/versions and /metadata/instance, without user data.",
)
@click.option(
    "--ambiguous",
    type=click.Choice(["weight", "reject"]),
    default="weight",
    show_default=True,
    help="What a request without an id gets where the pod has several identities.",
)
@click.option(
    "--hold",
    type=click.FloatRange(min=0),
    default=8.0,
    show_default=True,
    help="Seconds that a request waits for a binding or an identity after a change.",
)
@click.option(
    "--attestation",
    type=click.Choice(["kernel", "address"]),
    default="kernel",
    show_default=True,
    help="What proves a caller. address: any pod can take another's tokens by its address.",
)
@click.option(
    "--host-token",
    type=click.Choice(["pod", "root"]),
    default="pod",
    show_default=True,
    help="Who may ask for tokens of other pods at /host/token: pods of --host-token-callers; root: "
    "also root of the node, for nodes whose pods have no cgroups.",
)
@click.option(
    "--host-token-callers",
    multiple=True,
    type=PodRef(),
    metavar="NAMESPACE/NAME",
    help="Service account of a Secrets Store CSI provider; may be repeated. Default: the Azure "
    "provider's in kube-system.",
)
@click.option(
    "--netns-dir",
    default="/run/netns",
    show_default=True,
    help="Where the container runtime mounts the pods' network namespaces.",
)
@click.option(
    "--cgroup-root",
    default="/sys/fs/cgroup",
    show_default=True,
    help="Where the host's cgroup v2 is mounted.",
)
@click.option(
    "--proc-sys-net",
    default="/proc/sys/net",
    show_default=True,
    help="Where the host's /proc/sys/net is mounted, writable.",
)
@click.option(
    "--on-exit",
    type=click.Choice(["keep", "remove"]),
    default="keep",
    show_default=True,
    help="Whether the interception outlives the agent. Removed, pods reach every identity of the "
    "node.",
)
@click.option(
    "--runtime-dir",
    default="",
    metavar="FOLDER",
    help="Where net and serve meet, and their probes ask. Default: /run/podidentity, or one made "
    "for this process by `podidentity nmi`.",
)
@click.option(
    "--handover-dir",
    default="",
    metavar="FOLDER",
    help="Folder of the node, of root, in which an agent takes the listeners over from the one "
    "before it. Default: none, and an update interrupts requests.",
)
@click.option(
    "--memory-limit",
    type=click.IntRange(min=0),
    default=0,
    metavar="BYTES",
    help="What the container of serve may hold: its worker is replaced at three quarters of it. "
    "0: no limit.",
)
@authorization_flags
@rules_flags
@prefetch_flag
@click.option("--kubeconfig", envvar="KUBECONFIG", help="Default: the pod's service account.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people or for machines.",
)
@click.option(
    "--audit-log",
    default="",
    metavar="PATH",
    help="Where a JSON line for each decision about a token goes; -: stdout. Default: nowhere.",
)
@boolean("--audit-required", text="Give no token while the audit log cannot be written.")
@click.option(
    "--prometheus-port",
    type=int,
    default=9090,
    show_default=True,
    help="Port of /metrics, on all addresses; 0: none.",
)
@click.option(
    "--debug-port",
    type=int,
    default=0,
    show_default=True,
    help="Port of /debug, on loopback only: what the agent knows, without secrets; 0: none.",
)
@click.option("-v", "--v", "verbosity", type=Verbosity(), default=0, help="4 or more: log more.")
@click.option("--custom-user-agent", default="", help="Added to the User-Agent.")
@entra_flags
@old_flags
@click.version_option(None, "--version", package_name="podidentity")
def nmi(**given: Any) -> None:  # noqa: ANN401 - parsed by click
    """Run the node agent: the metadata service of this node's pods.

    It leads pods' requests for 169.254.169.254 here, proves whose they are, and answers with the
    tokens of exactly the identities that the pod's namespace was given.
    """
    _serve(settings_from(given))


def settings_from(given: Mapping[str, Any]) -> NmiSettings:
    """Return the settings that the parsed flags stand for; raise click.UsageError."""
    rest = dict(given)
    mode, verbose = rest.pop("operation_mode").lower(), rest.pop("verbosity") >= 4
    if mode not in _OPERATION_MODES:
        raise click.UsageError(f"--operation-mode must be standard or managed, not {mode!r}.")
    namespaced = rest.pop("force_namespaced")
    rest = rules_settings(rest, standard=mode == "standard", namespaced=namespaced)
    return _settings(rest, verbose=verbose)


def _settings(given: dict[str, Any], *, verbose: bool) -> NmiSettings:
    if not given["node"]:
        raise click.UsageError("--node is needed: the name of the node that this runs on.")
    given = entra_settings(given)
    # Not given, they have the defaults of the settings.
    given = {name: value for name, value in given.items() if value != ()}
    return NmiSettings(**given, verbose=verbose)


def _serve(settings: NmiSettings) -> None:
    """Run both programs; their imports are made there, so that `--help` costs none of them."""
    from podidentity.cli import programs

    _end(programs.both(settings))


def _run_net(settings: NmiSettings) -> None:
    from podidentity.cli import programs

    _end(programs.net(settings))


def _run_serve(settings: NmiSettings) -> None:
    from podidentity.cli import programs

    _end(programs.serve(settings))


def _end(code: int) -> None:
    if code:
        raise click.exceptions.Exit(code)


def _program(name: str, text: str, run: Callable[[NmiSettings], None]) -> click.Command:
    """Return a command with the flags of `nmi`; those that do not concern it have no effect."""
    return click.Command(
        name,
        params=nmi.params,
        callback=lambda **given: run(settings_from(given)),
        help=text,
        epilog=examples(f"podidentity {name} --node=$(NODE_NAME) --operation-mode=managed"),
        context_settings=nmi.context_settings,
    )


net = _program(
    "net",
    "Run the privileged half of the node agent: set and guard the rules, prove callers.\n\n"
    "It takes the flags of `podidentity nmi`. It has no API token, listens on no port, and answers "
    "serve over a socket in --runtime-dir.",
    _run_net,
)
serve = _program(
    "serve",
    "Run the other half of the node agent: answer pods, decide, hold tokens.\n\n"
    "It takes the flags of `podidentity nmi`, and needs no capability. A supervisor keeps the "
    "listening sockets and replaces a worker that ends, hangs or grows too large.",
    _run_serve,
)
