"""`podidentity nmi`: the flags that change the rules, and the switches back to the old ones.

Each rule that differs from the archived project's has one switch, off by default, with one prefix:
docs/reference/compatibility.md says what each opens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from podidentity.cli.old_flags import boolean
from podidentity.settings import Compat

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

EVERYWHERE = "*"

_COMPAT = {
    "cross_namespace": "Bindings and identities of other namespaces count.",
    "foreign_secrets": "Secrets of other namespaces are read.",
    "any_label_exceptions": "One label of an AzurePodIdentityException is enough, in any case.",
    "text_errors": "Errors are plain text, with the old statuses.",
    "tenant_array": "Who has auxiliaryTenantIDs is answered with an array, a token a tenant.",
}


def _number(name: str, default: int, text: str) -> _Decorator:
    return click.option(
        f"--{name}", type=click.IntRange(min=0), default=default, show_default=True, help=text
    )


_FLAGS: list[_Decorator] = [
    boolean(
        "--enableScaleFeatures",
        "only_own_records",
        default=True,
        text="Standard mode: watch only AzureAssignedIdentities labelled with this node's name.",
    ),
    _number(
        "retry-attempts-for-created",
        16,
        "Standard mode: times --find-identity-retry-interval a request waits for a controller.",
    ),
    _number(
        "retry-attempts-for-assigned",
        4,
        "Standard mode: as many more, once the controller has begun.",
    ),
    _number(
        "find-identity-retry-interval", 5, "Seconds. Nothing is polled: a change is seen at once."
    ),
    click.option(
        "--exception-namespaces",
        default="",
        metavar="NAMESPACE,…",
        help="Where AzurePodIdentityExceptions have effect; *: everywhere. Default: kube-system "
        "and the agent's own namespace.",
    ),
    click.option(
        "--own-namespace",
        envvar="POD_NAMESPACE",
        default="kube-system",
        show_default=True,
        help="The agent's own namespace.",
    ),
    *[
        boolean(f"--compat-{name.replace('_', '-')}", f"compat_{name}", text=f"As before: {text}")
        for name, text in _COMPAT.items()
    ],
]


def rules_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def rules_settings(given: dict[str, Any], *, standard: bool, namespaced: bool) -> dict[str, Any]:
    """Return the settings that the flags stand for, in their place; raise UsageError."""
    rest = dict(given)
    created, more = rest.pop("retry_attempts_for_created"), rest.pop("retry_attempts_for_assigned")
    interval = rest.pop("find_identity_retry_interval")
    chosen, own = rest.pop("exception_namespaces"), rest.pop("own_namespace")
    compat = Compat(**{name: rest.pop(f"compat_{name}") for name in _COMPAT})
    if namespaced and compat.cross_namespace:
        raise click.UsageError("--forceNamespaced and --compat-cross-namespace contradict.")
    return {
        **rest,
        "standard": standard,
        "unseen_wait": float(created * interval),
        "begun_wait": float((created + more) * interval),
        "exception_namespaces": _namespaces(chosen, own),
        "compat": compat,
    }


def _namespaces(chosen: str, own: str) -> frozenset[str] | None:
    names = frozenset(each.strip() for each in chosen.split(",") if each.strip())
    if EVERYWHERE in names:
        return None
    return names or frozenset({"kube-system", own})
