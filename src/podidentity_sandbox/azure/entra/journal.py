"""What the journal says of a request for a token: who asked for what, never with which secret."""

from __future__ import annotations

from collections.abc import Mapping


def asked(form: Mapping[str, str]) -> dict[str, str]:
    """Return what is told of a form that reached Entra."""
    return {
        "grant_type": form.get("grant_type", ""),
        "client_id": form.get("client_id", ""),
        "credential": _credential(form),
        "scope": form.get("scope") or form.get("resource", ""),
    }


def _credential(form: Mapping[str, str]) -> str:
    if form.get("client_assertion"):
        return "assertion"
    return "secret" if form.get("client_secret") else ""
