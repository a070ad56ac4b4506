"""The arguments of the commands, and what is refused before Azure is asked."""

from __future__ import annotations

from typing import Any

from knack.util import CLIError

SWITCHES = {
    "enable_pod_identity": "Enable pod identity addon.",
    "disable_pod_identity": "Disable pod identity addon; its identities are forgotten.",
    "enable_pod_identity_with_kubenet": "Enable pod identity addon for cluster using Kubenet"
    " network plugin: without further policies its pods can forge their addresses.",
}


def load_arguments(loader: Any, command: str) -> None:
    """Describe the arguments of `command` to az."""
    from azure.cli.command_modules.acs._params import load_arguments as of_core

    of_core(loader, command)  # `aks update` keeps all of az's own
    _update(loader)
    _pod_identity(loader)
    _exceptions(loader)


def _update(loader: Any) -> None:
    with loader.argument_context("aks update") as context:
        for name, text in SWITCHES.items():
            context.argument(name, action="store_true", help=text)


def _pod_identity(loader: Any) -> None:
    with loader.argument_context("aks pod-identity") as context:
        context.argument("cluster_name", help="The cluster name.")
        context.argument("aks_custom_headers", help="Comma-separated key-value pairs of headers.")
    with loader.argument_context("aks pod-identity add") as context:
        _named(context, "identity", required=False)
        context.argument("identity_resource_id", help="Resource id of the identity to use.")
        context.argument("binding_selector", help="Optional binding selector to use.")
    with loader.argument_context("aks pod-identity delete") as context:
        _named(context, "identity", required=True)


def _exceptions(loader: Any) -> None:
    for verb, required in (("add", False), ("update", True), ("delete", True)):
        with loader.argument_context(f"aks pod-identity exception {verb}") as context:
            _named(context, "exc", required=required)
    for verb in ("add", "update"):
        with loader.argument_context(f"aks pod-identity exception {verb}") as context:
            context.argument(
                "pod_labels",
                nargs="*",
                required=True,
                help="Space-separated labels: key=value [key=value ...].",
                validator=check_labels,
            )


def _named(context: Any, prefix: str, *, required: bool) -> None:
    # Not argparse's `required`: the words of the refusal are aks-preview's.
    context.argument(
        f"{prefix}_name",
        options_list=["--name", "-n"],
        default=None,
        required=False,
        help="Name." if required else "Name. Generated if not specified.",
        validator=check_name if required else fill_name,
    )
    context.argument(
        f"{prefix}_namespace",
        options_list=["--namespace"],
        default=None,
        required=False,
        help="Kubernetes namespace.",
        validator=check_namespace,
    )


def fill_name(namespace: Any) -> None:
    """Leave the name to the service, where none is given."""
    for argument in ("identity_name", "exc_name"):
        if hasattr(namespace, argument) and not getattr(namespace, argument):
            setattr(namespace, argument, "")


def check_name(namespace: Any) -> None:
    """Refuse a command that does not say which."""
    if not (getattr(namespace, "identity_name", None) or getattr(namespace, "exc_name", None)):
        raise CLIError("--name is required")


def check_namespace(namespace: Any) -> None:
    """Refuse a command that does not say where."""
    if not (
        getattr(namespace, "identity_namespace", None) or getattr(namespace, "exc_namespace", None)
    ):
        raise CLIError("--namespace is required")


def check_labels(namespace: Any) -> None:
    """Replace `key=value` words by a map; refuse what is no label of Kubernetes."""
    from azure.cli.command_modules.acs._validators import validate_label

    labels: dict[str, str] = {}
    for word in namespace.pod_labels or []:
        labels.update(validate_label(word))
    namespace.pod_labels = labels
