"""`podidentity rights`: what the commands need, as a table, as Kubernetes' roles, or as Azure's.

An administrator gives a colleague or a pipeline the roles that it prints.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import click

from podidentity.cli.cluster_rights import Places, Single, Where, singles
from podidentity.cli.needed_rights import COMMANDS, Needs
from podidentity.cli.objects import Object
from podidentity.cli.output import CommandError, documents, terminal_width
from podidentity.cli.output import table as as_table
from podidentity.cli.parts import PARTS, AzureScope
from podidentity.manifests import NAMESPACE, own_namespace
from podidentity.wire.rbac import LABELS, RBAC

FAILS = "fails"
"""What most commands do without a right."""
HEAD = ("COMMAND", "WHERE", "RESOURCE", "VERBS", "ONLY", "FOR", "WITHOUT IT")


def roles(of: Iterable[Single], name: str) -> list[Object]:
    by_namespace: dict[str, list[Single]] = {}
    for each in of:
        by_namespace.setdefault(each.namespace, []).append(each)
    return [
        {**_head("Role" if namespace else "ClusterRole", name, namespace), "rules": _rules(rights)}
        for namespace, rights in sorted(by_namespace.items())
    ]


def bindings(made: Iterable[Object], subjects: Sequence[Object]) -> list[Object]:
    return [
        {
            **_head(
                f"{role['kind']}Binding",
                role["metadata"]["name"],
                role["metadata"].get("namespace", ""),
            ),
            "roleRef": {"apiGroup": RBAC, "kind": role["kind"], "name": role["metadata"]["name"]},
            "subjects": list(subjects),
        }
        for role in made
    ]


def _head(kind: str, name: str, namespace: str) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": kind,
        "metadata": {**metadata, "labels": dict(LABELS)},
    }


def _rules(rights: Iterable[Single]) -> list[Object]:
    """Return the fewest rules: one for all resources of a group that need the same."""
    by_object: dict[tuple[str, str], list[str]] = {}
    for each in rights:
        by_object.setdefault((each.resource, each.name), []).append(each.verb)
    names: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (resource, name), verbs in by_object.items():
        names.setdefault((resource, tuple(sorted(verbs))), []).append(name)
    alike: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (resource, wanted), only in names.items():
        plural, _, group = (
            ("", "", resource) if resource.startswith("/") else resource.partition(".")
        )
        alike.setdefault((group, wanted, tuple(filter(None, only))), []).append(plural)
    return [_rule(*key, resources) for key, resources in alike.items()]


def _rule(
    group: str, verbs: tuple[str, ...], names: tuple[str, ...], resources: Sequence[str]
) -> Object:
    if group.startswith("/"):
        return {"nonResourceURLs": [group], "verbs": list(verbs)}
    rule: Object = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
    return {**rule, "resourceNames": list(names)} if names else rule


def role_definition(needs: Needs, scope: AzureScope, name: str, at: Sequence[str]) -> Object:
    """Return a role for `az role definition create`, assignable at these scopes.

    https://learn.microsoft.com/azure/role-based-access-control/custom-roles
    """
    return {
        "Name": name,
        "IsCustom": True,
        "Description": f"What podidentity does with {_AT[scope]}, and no more.",
        "Actions": sorted({each.action for each in needs.azure if each.scope is scope}),
        "NotActions": [],
        "DataActions": [],
        "NotDataActions": [],
        "AssignableScopes": list(at),
    }


_AT: Mapping[AzureScope, str] = {
    AzureScope.IDENTITY: "a managed identity",
    AzureScope.MACHINES: "the machines of a cluster's nodes",
}


def rights(
    *,
    commands: tuple[str, ...],
    namespaces: tuple[str, ...],
    skip: tuple[str, ...],
    identities: tuple[str, ...],
    nmi_namespace: str,
    identities_namespace: str,
    users: tuple[str, ...],
    groups: tuple[str, ...],
    role_name: str | None,
    azure: str | None,
    scopes: tuple[str, ...],
    output: str,
) -> None:
    chosen = {name: COMMANDS[name] for name in commands or COMMANDS}
    left = {name: each.of(set(each.parts) - set(skip)) for name, each in chosen.items()}
    together = Needs(
        cluster=tuple(right for each in left.values() for right in each.cluster),
        azure=tuple(action for each in left.values() for action in each.azure),
    )
    if azure:
        scope = AzureScope(azure)
        made = role_definition(together, scope, f"{role_name or _name(commands)} {scope}", scopes)
        if not made["Actions"]:
            names = ", ".join(chosen)
            raise CommandError(f"podidentity {names} needs nothing in Azure for {_AT[scope]}")
        if not scopes:
            raise click.UsageError("--azure needs --scope: where the role can be assigned.")
        click.echo(json.dumps(made, indent=2))
        return
    if output == "table":
        click.echo(shown(left, terminal_width() or 100))
        return
    places = Places(
        pods=namespaces, nmi=nmi_namespace, accounts=identities_namespace, identities=identities
    )
    needed = roles(singles(together.cluster, places), role_name or _name(commands))
    subjects = [
        *({"apiGroup": RBAC, "kind": "User", "name": each} for each in users),
        *({"apiGroup": RBAC, "kind": "Group", "name": each} for each in groups),
    ]
    # A Role can be made only in a namespace that is there.
    at = {each.where for each in together.cluster}
    first: list[Object] = []
    if Where.ACCOUNTS in at:
        metadata = {"name": identities_namespace, "labels": dict(LABELS)}
        first.append({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    if Where.NMI in at and nmi_namespace != NAMESPACE:
        first.append(own_namespace(nmi_namespace))
    given = bindings(needed, subjects) if subjects else []
    click.echo(documents([*first, *needed, *given], output))


def _name(commands: Sequence[str]) -> str:
    words = re.sub(r"[^a-z]+", "-", "-".join(commands)) if commands else "commands"
    return f"podidentity-{words}"


def shown(needs: Mapping[str, Needs], width: int = 0) -> str:
    """Return the rights as a table, and an explanation of its parts below.

    Lines have at most `width` columns; 0: any length.
    """
    rows = [row for name, each in needs.items() for row in rows_of(name, each)]
    parts = dict.fromkeys(part for each in needs.values() for part in each.parts)
    notes = [f"  {part}: {PARTS[part].replace('`', '')}" for part in parts]
    if width:
        rows = [tuple(cell.replace(",", ", ") for cell in row) for row in rows]
        notes = [textwrap.fill(each, width, subsequent_indent="    ") for each in notes]
    table = as_table(HEAD, rows, width=width)
    return "\n".join([table, *(["", "FOR is a part of the work:", *notes] if notes else [])])


def rows_of(command: str, needs: Needs) -> list[tuple[str, ...]]:
    of_cluster = [
        (
            *(command, str(each.where), each.resource, ",".join(each.verbs)),
            *(",".join(each.names) or "-", ",".join(each.parts) or "-", each.without or FAILS),
        )
        for each in needs.cluster
    ]
    of_azure = [
        (
            *(command, f"Azure: {each.scope}", each.action),
            *("-", "-", ",".join(each.parts) or "-", FAILS),
        )
        for each in needs.azure
    ]
    return [*of_cluster, *of_azure]
