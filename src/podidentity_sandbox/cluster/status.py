"""Every refusal of the API server, as the Status object that a real one sends.

Clients decide by `reason` and `code`, people by `message`, so all three are the real server's:
https://github.com/kubernetes/apimachinery/blob/master/pkg/api/errors/errors.go
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cause:
    """One fault of a field: `spec.type`, `FieldValueRequired`, `Required value`."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", _with("Required value", detail))


def invalid(field: str, value: object, detail: str, *, kind: str = "Invalid") -> Cause:
    reason = "FieldValueTypeInvalid" if kind == "TypeInvalid" else "FieldValueInvalid"
    return Cause(field, reason, _with(f"Invalid value: {_shown(value)}", detail))


def unsupported(field: str, value: object, allowed: Iterable[object]) -> Cause:
    names = ", ".join(json.dumps(v if isinstance(v, str) else json.dumps(v)) for v in allowed)
    message = f"Unsupported value: {_shown(value)}: supported values: {names}"
    return Cause(field, "FieldValueNotSupported", message)


def forbidden_field(field: str, detail: str) -> Cause:
    """A field that may not be set, or not be changed."""
    return Cause(field, "FieldValueForbidden", _with("Forbidden", detail))


def _with(message: str, detail: str) -> str:
    return f"{message}: {detail}" if detail else message


def _shown(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


class StatusError(Exception):
    """A refusal; `body()` is the Status that goes to the client."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        return {**body, "code": self.code}


def _details(name: str, group: str, kind: str, causes: Sequence[Cause] = ()) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    if causes:
        details["causes"] = [_without_empty(cause) for cause in causes]
    return details


def _without_empty(cause: Cause) -> dict[str, str]:
    fields = {"reason": cause.reason, "message": cause.message, "field": cause.field}
    return {name: text for name, text in fields.items() if text}


def qualified(resource: str, group: str) -> str:
    """Return `pods` or `azureidentities.aadpodidentity.k8s.io`."""
    return f"{resource}.{group}" if group else resource


def not_found(resource: str, group: str, name: str) -> StatusError:
    message = f'{qualified(resource, group)} "{name}" not found'
    return StatusError(404, "NotFound", message, details=_details(name, group, resource))


def no_such_resource() -> StatusError:
    """No such resource type, or no such subresource."""
    message = "the server could not find the requested resource"
    return StatusError(404, "NotFound", message, details={})


def already_exists(resource: str, group: str, name: str, *, dying: bool = False) -> StatusError:
    """The name is taken, by an object that may be on its way out."""
    message = f'{qualified(resource, group)} "{name}" already exists'
    if dying:
        message = f"object is being deleted: {message}"
    return StatusError(409, "AlreadyExists", message, details=_details(name, group, resource))


MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def conflict(resource: str, group: str, name: str, cause: str = MODIFIED) -> StatusError:
    """Somebody else was faster, or a precondition does not hold."""
    where = qualified(resource, group)
    message = f'Operation cannot be fulfilled on {where} "{name}": {cause}'
    return StatusError(409, "Conflict", message, details=_details(name, group, resource))


def forbidden(
    resource: str, group: str, name: str, cause: str, causes: Sequence[Cause] = ()
) -> StatusError:
    """Not allowed: by authorisation, or by an admission rule."""
    where = qualified(resource, group)
    subject = f'{where} "{name}"' if name else where
    details = _details(name, group, resource, causes)
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {cause}", details=details)


def forbidden_path(user: str, verb: str, path: str) -> StatusError:
    message = f'forbidden: User "{user}" cannot {verb} path "{path}"'
    return StatusError(403, "Forbidden", message, details={})


def unauthorized() -> StatusError:
    """No credentials, or none that hold."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def invalid_object(kind: str, group: str, name: str, causes: Sequence[Cause]) -> StatusError:
    texts = [str(cause) for cause in causes]
    what = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{qualified(kind, group)} "{name}" is invalid: {what}'
    return StatusError(422, "Invalid", message, details=_details(name, group, kind, causes))


def left_out(code: int, reason: str, what: str) -> StatusError:
    """Return the refusal of what only a real API server has."""
    message = (
        f"the sandbox's own API server knows no {what}: "
        "`podidentity sandbox up --kubernetes FOLDER` has a real one"
    )
    return StatusError(code, reason, message)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def undecodable(kind: str, version: str, why: str) -> StatusError:
    """Return the refusal of a body that does not decode as that kind, in the decoder's words."""
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def method_not_supported(resource: str, group: str, action: str) -> StatusError:
    message = f'{action} is not supported on resources of kind "{qualified(resource, group)}"'
    details = _details("", group, resource)
    return StatusError(405, "MethodNotAllowed", message, details=details)


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    """The body's format is none that is read here."""
    message = (
        "the body of the request was in an unknown format - "
        f"accepted media types include: {', '.join(accepted)}"
    )
    return StatusError(415, "UnsupportedMediaType", message)


def not_acceptable(served: Sequence[str]) -> StatusError:
    """The client takes none of the formats that are written here."""
    message = f"only the following media types are accepted: {', '.join(served)}"
    return StatusError(406, "NotAcceptable", message)


def too_large(limit: int) -> StatusError:
    message = f"Request entity too large: limit is {limit}"
    return StatusError(413, "RequestEntityTooLarge", message)


def expired(message: str) -> StatusError:
    """The requested revision is no longer in the history."""
    return StatusError(410, "Expired", message)


def too_old(revision: int, oldest: int) -> StatusError:
    """A watch asks for changes that are forgotten."""
    return expired(f"too old resource version: {revision} ({oldest})")


def too_new(revision: int, current: int) -> StatusError:
    """A list or watch asks for a state that is not there yet."""
    message = f"Too large resource version: {revision}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details = {"causes": [cause], "retryAfterSeconds": 1}
    return StatusError(504, "Timeout", message, details=details)


def success(name: str, group: str, resource: str, uid: str) -> dict[str, Any]:
    """Return the Status that answers a deletion."""
    details = {**_details(name, group, resource), "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
