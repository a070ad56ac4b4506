"""The one error of the Kubernetes API, so that its callers need no HTTP library to read it."""

from __future__ import annotations

from http import HTTPStatus


class KubeError(Exception):
    """The API server said no, or could not be asked.

    `status` is its HTTP status, 0 where there was no answer; `reason` its machine-readable word
    (`NotFound`, `AlreadyExists`, `Expired`), "" where it gave none.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason

    @property
    def unreachable(self) -> bool:
        """No answer came: wrong configuration, network, TLS, or what answers is no API server."""
        return self.status == 0

    @property
    def unauthorized(self) -> bool:
        """The server does not know who asks."""
        return self.status == HTTPStatus.UNAUTHORIZED

    @property
    def forbidden(self) -> bool:
        """The server knows who asks, and refuses."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def not_found(self) -> bool:
        """No such object, or no such resource type."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def conflict(self) -> bool:
        """It exists already, or has changed meanwhile; `reason` tells the two apart."""
        return self.status == HTTPStatus.CONFLICT

    @property
    def gone(self) -> bool:
        """The resource version or the `continue` token is too old: list anew."""
        return self.status == HTTPStatus.GONE
