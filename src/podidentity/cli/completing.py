"""Offers names of what is in the cluster to a shell that completes a command line.

A person waits for this at a press of the key. So the cluster has SECONDS for an answer, with the
loading of the client; where it gives none, or refuses, nothing is offered, and nothing is printed.

A shell puts the only word that is offered into the line, and obeys what is in it. Specs are
tenants' to write: so a word is offered only if it has letters, digits and `_.:/-` alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import click
from click.shell_completion import CompletionItem

SECONDS = 0.8
MOST = "500"
"""Objects that are asked for: more than anybody reads."""
_CUSTOM = "/apis/aadpodidentity.k8s.io/v1"

Names = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
"""What click calls for the value of a parameter that begins so."""
Object = dict[str, Any]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,511}")

_waiting: list[Thread] = []
"""Who waits for the cluster still, and must not keep this process."""


def namespaces(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    return _offered(begun, ((_name(each), "") for each in read(ctx, "/api/v1/namespaces")))


def pods(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Offer the pods as NAMESPACE/NAME; of one namespace as soon as that is named."""
    namespace, slash, _name_begun = begun.partition("/")
    path = f"/api/v1/namespaces/{namespace}/pods" if slash else "/api/v1/pods"
    found = read(ctx, path)
    return _offered(
        begun, ((f"{each['metadata']['namespace']}/{_name(each)}", "") for each in found)
    )


def identities(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    found = read(ctx, f"{_CUSTOM}{_of_namespace(ctx)}/azureidentities")
    return _offered(begun, ((_name(each), _spec(each, "clientID")) for each in found))


def client_ids(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    found = read(ctx, f"{_CUSTOM}{_of_namespace(ctx)}/azureidentities")
    return _offered(begun, ((_spec(each, "clientID"), _name(each)) for each in found))


def selectors(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    found = read(ctx, f"{_CUSTOM}{_of_namespace(ctx)}/azureidentitybindings")
    return _offered(begun, ((_spec(each, "selector"), _name(each)) for each in found))


def exceptions(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    found = read(ctx, f"{_CUSTOM}{_of_namespace(ctx)}/azurepodidentityexceptions")
    return _offered(begun, ((_name(each), "") for each in found))


def service_accounts(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    found = read(ctx, f"/api/v1{_of_namespace(ctx)}/serviceaccounts")
    return _offered(begun, ((_name(each), "") for each in found))


def read(ctx: click.Context, path: str) -> list[Object]:
    """Return the objects at a path of the API server; [] if it does not give them in time."""
    found: list[Object] = []

    def ask() -> None:
        with suppress(Exception):
            found.extend(_listed(ctx.params.get("kubeconfig"), ctx.params.get("context"), path))

    with _without_stderr():
        asking = Thread(target=ask, daemon=True)
        asking.start()
        asking.join(SECONDS)
    if not asking.is_alive():
        return found
    _waiting.append(asking)
    return []


def leave() -> None:
    """End the process now if a thread still waits for the cluster: Python would wait for it."""
    if _waiting:
        sys.stdout.flush()
        os._exit(0)


def _listed(kubeconfig: str | None, context: str | None, path: str) -> Iterator[Object]:
    import asyncio
    import json

    from podidentity.adapters.kube import Kube
    from podidentity.cli.connection import environment_proxies

    async def page() -> bytes:
        kube = Kube.connect(
            kubeconfig,
            context=context,
            user_agent="podidentity",
            proxies=environment_proxies(),
            patience=0,
        )
        try:
            return await kube.get(path, {"limit": MOST})
        finally:
            await kube.close()

    yield from json.loads(asyncio.run(page()))["items"]


@contextmanager
def _without_stderr() -> Iterator[None]:
    """What a credential plug-in says is not for the line that is completed."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _of_namespace(ctx: click.Context) -> str:
    """Return the part of a path for `--namespace`; "" where it is not given, or several are."""
    named = ctx.params.get("namespace")
    return f"/namespaces/{named}" if isinstance(named, str) and named else ""


def _offered(begun: str, found: Iterator[tuple[str, str]]) -> list[CompletionItem]:
    named = {
        value: more if _WORD.fullmatch(more) else ""
        for value, more in found
        if _WORD.fullmatch(value) and value.startswith(begun)
    }
    return [CompletionItem(value, help=more or None) for value, more in sorted(named.items())]


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])


def _spec(found: Object, field: str) -> str:
    spec = found.get("spec")
    value = spec.get(field) if isinstance(spec, dict) else None
    return value if isinstance(value, str) else ""
