"""A small client of the sandbox's API server, for the commands at the host's shell.

Synchronous and of the standard library alone: it starts in no time, and shares no code with the
client that the product is judged by. No proxy is asked: the server is on the loopback.
"""

from __future__ import annotations

import http.client
import json
import select
import ssl
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from podidentity_sandbox.plan import OWN_AGENT, Plan
from podidentity_sandbox.world import SandboxError

Object = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_IDLE = 5.0
"""Seconds after which a connection is not used again: before the server closes it."""


class ApiError(SandboxError):
    """The API server said no; the message is its own. `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """The API server of one sandbox, as its administrator."""

    def __init__(self, plan: Plan) -> None:
        self._port = plan.apiserver_port
        self._token = plan.admin_token
        self._tls = ssl.create_default_context(cafile=str(plan.ca_certificate))
        self._kept: list[tuple[http.client.HTTPSConnection, float]] = []
        """Connections that may be used again, with the time since when; threads share them."""
        weakref.finalize(self, _close_all, self._kept)

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        seconds: float = 60,
    ) -> Object:
        """Send a request and return the object that comes back; raise ApiError."""
        connection = self._reusable() or self._connection()
        headers = {"Accept": accept, **({} if body is None else {"Content-Type": content_type})}
        try:
            response = self._sent(connection, method, path, body, headers, seconds=seconds)
            answer: Object = json.loads(response.read())
        except BaseException:
            connection.close()
            raise
        self._kept.append((connection, time.monotonic()))
        return answer

    def watch(
        self, path: str, resource_version: str, seconds: float
    ) -> Iterator[tuple[str, Object]]:
        """Yield (type, object) of each change after `resource_version`, for `seconds` at most."""
        query = {"watch": "1", "resourceVersion": resource_version}
        query["timeoutSeconds"] = str(max(1, round(seconds)))
        url = f"{path}?{urlencode(query)}"
        with self._stream(url, seconds) as response:
            try:
                while line := response.readline():
                    event = json.loads(line)
                    yield event["type"], event["object"]
            except TimeoutError:
                return

    def stream(self, path: str) -> Iterator[bytes]:
        """Yield the objects of the answer as they come, until its end; raise ApiError."""
        with self._stream(path, None) as response:
            while chunk := response.read1(65536):
                yield chunk

    def follow(self, path: str, seconds: float) -> Iterator[tuple[str, Object]]:
        """Yield (type, object) of what is at `path`, as ADDED, and of each change, for `seconds`.

        A watch that the server ends is resumed; it may end one at any time. Raises ApiError.
        """
        end = time.monotonic() + seconds
        found = self.request("GET", path)
        yield from (("ADDED", each) for each in found["items"])
        version = found["metadata"]["resourceVersion"]
        while (left := end - time.monotonic()) > 0:
            for kind, item in self.watch(path, version, left):
                if kind == "ERROR":
                    raise ApiError(item.get("code", 500), item.get("message", "the watch failed"))
                version = item["metadata"]["resourceVersion"]
                yield kind, item

    def wait_for(
        self,
        path: str,
        names: Collection[str],
        holds: Callable[[Object], bool],
        seconds: float,
    ) -> Mapping[str, Object | None]:
        """Wait until each named object of the collection at `path` is as `holds` says.

        Returns those that are not when the time is up, as they were seen last (None: never).
        """
        waiting: dict[str, Object | None] = dict.fromkeys(names)
        for kind, item in self.follow(path, seconds) if waiting else ():
            name = item["metadata"]["name"]
            if name not in waiting or kind == "DELETED":
                continue
            waiting[name] = item
            if holds(item):
                del waiting[name]
            if not waiting:
                break
        return waiting

    def _stream(self, url: str, seconds: float | None) -> http.client.HTTPResponse:
        """Return an answer that comes little by little, and at whose end its connection ends."""
        headers = {"Accept": "application/json", "Connection": "close"}
        return self._sent(self._connection(), "GET", url, None, headers, seconds=seconds)

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self._port, context=self._tls)

    def _reusable(self) -> http.client.HTTPSConnection | None:
        while self._kept:
            connection, since = self._kept.pop()
            if time.monotonic() < since + _IDLE and not _has_something(connection):
                return connection
            connection.close()
        return None

    def _sent(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: Object | None,
        headers: Mapping[str, str],
        *,
        seconds: float | None,
    ) -> http.client.HTTPResponse:
        own = {"Authorization": f"Bearer {self._token}", "User-Agent": OWN_AGENT}
        data = None if body is None else json.dumps(body).encode()
        connection.timeout = seconds
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        try:
            connection.request(method, path, data, {**headers, **own})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as cause:
            connection.close()
            raise SandboxError(
                f"the sandbox's API server does not answer ({cause}). "
                "See `podidentity sandbox status` and `… logs --part cluster`"
            ) from cause
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            with response:
                raise ApiError(response.status, _message(response))
        return response


def _has_something(connection: http.client.HTTPSConnection) -> bool:
    """Whether something came that nobody asked for: the server's farewell."""
    if connection.sock is None:  # it was said in the answer; the next request connects again
        return False
    look = select.poll()
    look.register(connection.sock, select.POLLIN)
    return bool(look.poll(0))


def _close_all(kept: list[tuple[http.client.HTTPSConnection, float]]) -> None:
    for connection, _ in kept:
        connection.close()


def ready(item: Object) -> bool:
    conditions = item.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _message(response: http.client.HTTPResponse) -> str:
    text = response.read(4096).decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return f"the API server answered {response.status}: {text[:200]}"
