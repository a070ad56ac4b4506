"""The paths that are of no resource: which types there are, and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from podidentity_sandbox.cluster import aggregated, discovery, status
from podidentity_sandbox.cluster.openapi import documents as openapi
from podidentity_sandbox.cluster.openapi import older
from podidentity_sandbox.cluster.presentation import JSON, SERVED, wishes
from podidentity_sandbox.cluster.registry import Registry
from podidentity_sandbox.cluster.storage import encode


def answer(registry: Registry, path: str, accept: str) -> web.Response | None:
    """Return the document at a path, in the form that the client wishes; None for no such path.

    Raises 406 for a client that takes none that there is.
    """
    if path == older.PATH:
        if older.ASKED not in accept and older.CONTENT_TYPE not in accept:
            raise status.not_acceptable([older.CONTENT_TYPE])
        return _answer(older.DOCUMENT, older.CONTENT_TYPE)
    wanted = list(wishes(accept))
    if not wanted:
        raise status.not_acceptable(SERVED)
    if path.startswith(openapi.ROOT):
        raw = openapi.document(registry, path.rstrip("/"))
        return None if raw is None else _answer(raw, JSON)
    # v2beta1 comes before plain JSON in some clients' wishes: the first that can be met counts.
    met = next((wish for wish in wanted if _is_aggregated(wish) or "as" not in wish), {})
    if "as" in met and (found := aggregated.document(registry, path)) is not None:
        return _answer(encode(found), aggregated.CONTENT_TYPE)
    found = discovery.document(registry, path)
    return None if found is None else _answer(encode(found), JSON)


def _is_aggregated(wish: Mapping[str, str]) -> bool:
    return (wish.get("as"), wish.get("g"), wish.get("v")) == aggregated.FORM


def _answer(raw: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Vary": "Accept"}
    return web.Response(body=raw, headers=headers)
