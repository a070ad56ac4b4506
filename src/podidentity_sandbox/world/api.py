"""A small client of the sandbox's API server, for the commands at the host's shell.

Synchronous and of the standard library alone: it starts in no time, and shares no code with the
client that the product is judged by. No proxy is asked: the server is on the loopback.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from podidentity_sandbox.plan import OWN_AGENT, Plan
from podidentity_sandbox.world import SandboxError

Object = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"


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

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        seconds: float = 60,
    ) -> Object:
        """Send a request and return the object that comes back; raise ApiError."""
        with _closing(self._send(method, path, body, content_type, seconds)) as response:
            answer: Object = json.loads(response.read())
        return answer

    def watch(
        self, path: str, resource_version: str, seconds: float
    ) -> Iterator[tuple[str, Object]]:
        """Yield (type, object) of each change after `resource_version`, for `seconds` at most."""
        query = {"watch": "1", "resourceVersion": resource_version}
        query["timeoutSeconds"] = str(max(1, round(seconds)))
        url = f"{path}?{urlencode(query)}"
        with _closing(self._send("GET", url, None, "", seconds)) as response:
            try:
                while line := response.readline():
                    event = json.loads(line)
                    yield event["type"], event["object"]
            except TimeoutError:
                return

    def stream(self, path: str) -> Iterator[bytes]:
        """Yield the objects of the answer as they come, until its end; raise ApiError."""
        with _closing(self._send("GET", path, None, "", None)) as response:
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

    def _send(
        self, method: str, path: str, body: Object | None, content_type: str, seconds: float | None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=seconds, context=self._tls
        )
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        # The connection closes with the response: one request each.
        headers |= {"Connection": "close", "User-Agent": OWN_AGENT}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = content_type
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as cause:
            connection.close()
            raise SandboxError(
                f"the sandbox's API server does not answer ({cause}). "
                "See `podidentity sandbox status` and `… logs --part cluster`"
            ) from cause
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            with _closing(response):
                raise ApiError(response.status, _message(response))
        return response


def ready(item: Object) -> bool:
    """Whether a node or a pod has the condition Ready."""
    conditions = item.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _message(response: http.client.HTTPResponse) -> str:
    text = response.read(4096).decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return f"the API server answered {response.status}: {text[:200]}"


class _closing:  # noqa: N801 - reads as contextlib.closing, which types the response away
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def __enter__(self) -> http.client.HTTPResponse:
        return self._response

    def __exit__(self, *_: object) -> None:
        self._response.close()
