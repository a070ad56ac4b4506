"""Who else may take requests to the metadata address, by what runs on the nodes.

Rules of others in the kernel NMI sees itself, and tells by PathBroken; here are the programs that
could write such rules: in the node's network, with the right to change it, and with the address
among their words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from podidentity.cli.checks.findings import CheckReason, Finding, Severity, of_daemon_set
from podidentity.cli.objects import Object
from podidentity.cli.rollout import is_archived_nmi, is_ours


def takers(daemon_sets: Sequence[Object], address: str) -> Iterator[Finding]:
    """Yield the DaemonSets, neither NMI's nor that of AAD Pod Identity, that name the address."""
    for each in daemon_sets:
        template = each["spec"]["template"]
        if is_ours(each) or is_ours(template) or is_archived_nmi(each):
            continue
        spec = template["spec"]
        containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
        changes = spec.get("hostNetwork") and any(map(_may_change_the_network, containers))
        if changes and any(address in word for one in containers for word in _words(one)):
            yield of_daemon_set(
                each,
                CheckReason.TAKER,
                f"It names {address}, and may change the network of the nodes: where it leads "
                "requests of pods to itself, they do not come to NMI.",
                "See whether NMI's probe arrives (podidentity explain NAMESPACE/NAME), and "
                "docs/reference/nodes.md, which says what NMI stands beside.",
                Severity.WARNING,
            )


def _may_change_the_network(container: Object) -> bool:
    context = container.get("securityContext") or {}
    added = (context.get("capabilities") or {}).get("add") or ()
    return bool(context.get("privileged")) or not {"NET_ADMIN", "ALL"}.isdisjoint(added)


def _words(container: Object) -> Iterator[str]:
    yield from map(str, container.get("command") or ())
    yield from map(str, container.get("args") or ())
    for each in container.get("env") or ():
        yield str(each.get("value", ""))
