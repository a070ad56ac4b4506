"""The verb and the resource of a request, read from its method and path alone.

The parts and the verbs are those that authorisation is granted on:
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

_VERBS = {
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
    "GET": "get",
    "HEAD": "get",
}
_OF_NAMESPACE = ("status", "finalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """A request, taken apart."""

    path: str
    verb: str
    """A resource verb, or the method in lower case where the path is of no resource."""
    group: str = ""
    version: str = ""
    resource: str = ""
    """Plural; "" where the path is of no resource."""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    label_selector: str = ""
    field_selector: str = ""

    def requires(self, field: str) -> str:
        """Return the value that the field selector demands of a field, "" where it does not."""
        for part in self.field_selector.split(","):
            label, sign, value = part.partition("=")
            if sign and label.strip() == field:
                return value.removeprefix("=").strip()
        return ""

    @property
    def single(self) -> str:
        """The one object that a request is about: by its path, or by a selector of its name."""
        if self.name or self.verb not in ("list", "watch", "deletecollection"):
            return self.name
        return self.requires("metadata.name")


def request_info(method: str, raw_path: str, query: Mapping[str, str]) -> RequestInfo:
    """Return the verb and the resource of a request; `raw_path` is still percent-encoded."""
    path = unquote(raw_path)
    parts = [unquote(part) for part in raw_path.strip("/").split("/")]
    found = _api(parts)
    if found is None:
        return RequestInfo(path=path, verb=method.lower())
    group, version, rest = found
    namespace, resource, name, subresource = _resource(rest)
    return RequestInfo(
        path=path,
        verb=_verb(method, name, query),
        group=group,
        version=version,
        namespace=namespace,
        resource=resource,
        name=name,
        subresource=subresource,
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
    )


def _api(parts: list[str]) -> tuple[str, str, list[str]] | None:
    """Return group, version and the rest of a resource path."""
    match parts:
        case ["api", version, _, *_]:
            return "", version, parts[2:]
        case ["apis", group, version, _, *_]:
            return group, version, parts[3:]
    return None


def _resource(parts: list[str]) -> tuple[str, str, str, str]:
    """Return namespace, resource, name and subresource ("" where missing)."""
    match parts:
        case ["namespaces", name]:
            return name, "namespaces", name, ""
        case ["namespaces", name, subresource] if subresource in _OF_NAMESPACE:
            return name, "namespaces", name, subresource
        case ["namespaces", namespace, resource, *rest]:
            return namespace, resource, *_name(rest)
        case [resource, *rest]:
            return "", resource, *_name(rest)
    return "", "", "", ""


def _name(parts: list[str]) -> tuple[str, str]:
    """Return name and subresource; what follows `proxy` is a path of somebody else's."""
    rest = parts[1:2] if parts[1:2] == ["proxy"] else parts[1:]
    return (parts[0] if parts else ""), "/".join(rest)


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    verb = _VERBS.get(method, method.lower())
    if name:
        return verb
    if verb == "get":
        return "watch" if truth(query.get("watch")) else "list"
    return "deletecollection" if verb == "delete" else verb


def truth(text: str | None) -> bool:
    """Return a boolean query parameter: absent, `0` and `false` are False."""
    return text is not None and text.lower() not in ("0", "false")
