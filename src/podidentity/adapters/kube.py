"""The Kubernetes API server, over httpx2; `kubeconfig` says which one it is, and who asks.

Objects come and go as JSON bytes, which `wire` decodes into values with our fields only. That is
forty times faster than the models of any client, and an object that cannot be decoded harms no
other.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar, overload

import httpx2
import msgspec
from lightkube.core.exceptions import ConfigError

from podidentity.bounded_answers import TooLong, body_of, no_answer
from podidentity.client_connections import ClientConnections
from podidentity.credential_plugin import NoCredentials
from podidentity.kubeconfig import load_credentials
from podidentity.wire import shallow
from podidentity.wire.kube import (
    WATCH,
    WATCH_SECONDS,
    Event,
    KubeError,
    NotKubernetes,
    Page,
    TooDeep,
    is_status,
    parse_error,
    parse_event,
    parse_list,
    request_in_words,
)
from podidentity.wire.proxies import DIRECT, Proxies, Proxy

_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_D = TypeVar("_D")

PATIENCE = 30.0
"""Seconds that a request waits in all for an API server that asks to be asked later (429, 503)."""

_PAGE = 500
_LONGEST_LINE = 16 << 20
_REQUEST = httpx2.Timeout(20, connect=5)  # 30 s with the reflector's longest rest
# The server ends a watch itself; if it does not, the connection is dead.
_OVERDUE = 1.05
# A server that loses power sends nothing. So probe after 15 s of silence and give up after 20 s
# more, instead of watching a dead connection for minutes.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 35_000),
]


# ConfigError is lightkube's: a file with a token that is gone.
_FAILED = (httpx2.HTTPError, OSError, ConfigError, NoCredentials)
_CUT = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)
"""The connection ended before the answer did, as where a server restarts."""
_ASKED = 2
"""Times that a question is asked."""
_PAUSE = 1.0
"""Seconds until something is read again of a server that failed: an etcd elects its leader."""


def _may_pass(error: KubeError) -> bool:
    """Whether the same question may be answered in a moment."""
    failed = error.status >= httpx2.codes.INTERNAL_SERVER_ERROR
    return failed or was_cut(error)


def was_cut(error: KubeError) -> bool:
    """Whether the connection ended before the answer did."""
    return isinstance(error.__cause__, _CUT)


class PassedOn(NamedTuple):
    """What a pod answered behind the API server's proxy."""

    status: int
    body: bytes


LARGEST_ANSWER = 32 << 20
"""Bytes of what is no list: who has taken a pod's, or the server's, place may send without end."""
_LARGEST_PAGE = 4 << 20
"""Bytes of a page of a list. NMI reads six lists at once, and decodes 1 MB in 2 to 3 ms."""
_LARGEST_OBJECT = 16 << 20
"""Bytes of a page with one object. An object has 1.5 MB in etcd, and with each `<` escaped six
times as much in JSON (https://etcd.io/docs/latest/dev-guide/limit/)."""
_FEWER = 8
"""After a page that is too large the next request asks for so many times fewer objects."""


LARGEST_LIST = 1 << 30
"""Bytes of a list that is kept whole: 100,000 pods of ten kilobytes."""
MOST_OBJECTS = 500_000
"""Of a list: more than a cluster has."""


class TooLarge(KubeError):
    """An answer has more bytes than there is memory for."""


OnFailure = Callable[[str, str], None]
"""Called for each failed request with its method (WATCH for a watch) and its path."""
OnChange = Callable[[str, str], AbstractContextManager[None]]
"""Called with the method and the path of a change or request, which happens within its result."""


def _as_it_is(_: str, __: str) -> AbstractContextManager[None]:
    return nullcontext()


class Kube:
    """A client of one API server, as one user. Close it when done."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        failed: OnFailure = lambda *_: None,
        *,
        user: str = "",
        patience: float = PATIENCE,
        reads: int = 1,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        changing: OnChange = _as_it_is,
        asking: OnChange = _as_it_is,
        proxy: Proxy | None = None,
    ) -> None:
        """`reads`: how often something is read where the server fails; a change is made once."""
        self._client = client
        # Whole URLs: to join one to the client's own base costs httpx2 three times as much.
        self._base = str(client.base_url).rstrip("/")
        self._failed = failed
        self._patience = patience
        self._reads = reads
        self._sleep = sleep
        self._jitter = jitter
        self._changing = changing
        self._asking = asking
        self._by = f", by the proxy {proxy} of {proxy.named}" if proxy else ""
        self._headers = {"Impersonate-User": user} if user else {}

    @classmethod
    def connect(
        cls,
        kubeconfig: str | None,
        *,
        context: str | None = None,
        user_agent: str,
        trust_env: bool = True,
        proxies: Proxies = DIRECT,
        reads: int = 1,
        failed: OnFailure = lambda *_: None,
        patience: float = PATIENCE,
        changing: OnChange = _as_it_is,
        asking: OnChange = _as_it_is,
    ) -> Self:
        """Return a client for the configured cluster; nothing is sent yet. Raise KubeError.

        `kubeconfig` is a path, or several joined by `:` as in KUBECONFIG, which are merged as
        kubectl does. None: the pod's service account, else `~/.kube/config`. `trust_env`: obey the
        context's proxy-url, else `proxies`, as kubectl does. The agent does not; it notices a dead
        connection within 35 s. `patience`: seconds that a request waits in all for an API server
        that asks to be asked later; 0: the caller decides.
        """
        found = load_credentials(kubeconfig, context, trust_env=trust_env, proxies=proxies)
        headers = {"User-Agent": user_agent, "Accept": "application/json"}
        transport, by = None, found.proxy
        if not trust_env:
            transport = ClientConnections(found.server, found.verify, _KEEPALIVE)
        return cls(
            httpx2.AsyncClient(
                base_url=found.server,
                verify=found.verify,
                auth=found.auth,
                headers=headers,
                timeout=_REQUEST,
                trust_env=False,  # the library's rules for proxies are not kubectl's
                proxy=httpx2.Proxy(by.url, auth=by.login) if by else None,
                transport=transport,
            ),
            failed,
            patience=patience,
            reads=reads,
            changing=changing,
            asking=asking,
            proxy=by,
        )

    @property
    def server(self) -> str:
        return self._base

    def acting_as(self, user: str) -> Kube:
        """Return a client of the same connections that acts as `user`; close this one alone.

        https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
        """
        return Kube(self._client, self._failed, user=user, sleep=self._sleep, asking=self._asking)

    async def close(self) -> None:
        await self._client.aclose()

    async def after(self, error: KubeError) -> None:
        """Return when what failed so may be tried again; raise the error if it would fail again."""
        if not (_may_pass(error) or error.throttled or error.gone):
            raise error
        await self._sleep(error.wait(self._jitter()) or _PAUSE)

    async def pause(self) -> None:
        """Return when a watch that has ended may be begun again."""
        await self._sleep(_PAUSE)

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """Return the object at `path` as JSON; raise KubeError."""
        return await self._send("GET", path, params=params)

    async def passed_on(self, path: str) -> bytes:
        """Return what a pod answers behind the API server's proxy, of whatever status.

        Raises KubeError where the API server answers in the pod's place: it may not be asked, or
        cannot reach the pod.
        """
        return (await self.asked_of_pod(path)).body

    async def asked_of_pod(
        self, path: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> PassedOn:
        """Return a pod's answer with its status, asked with these headers, too; as `passed_on`."""
        try:
            with self._asking("GET", path):
                async with self._client.stream(
                    "GET", self._base + path, headers={**self._headers, **headers}
                ) as response:
                    body = await body_of(response, LARGEST_ANSWER)
        except TooLong as error:
            raise KubeError(f"It sent more than {LARGEST_ANSWER >> 20} MiB.") from error
        except _FAILED as error:
            self._failed("GET", path)
            raise self._unreachable(error) from error
        if response.is_error and is_status(body):
            self._failed("GET", path)
            raise _refusal("GET", path, response, body)
        return PassedOn(response.status_code, body)

    async def list(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        """Return one page (`params`: limit, continue, selectors); raise KubeError.

        Raises TooLarge if it has more than 4 MiB, or one object more than 16 MiB.
        """
        most = _LARGEST_OBJECT if (params or {}).get("limit") == "1" else _LARGEST_PAGE
        body = await self._send("GET", path, params=params, most=most)
        try:
            try:
                return parse_list(body)
            except TooDeep:
                return parse_list(await asyncio.to_thread(shallow, body))
        except NotKubernetes as error:
            raise KubeError(f"{self.server} sent {error}.") from error

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        """Return the whole list, read in pages of one resource version; raise KubeError."""
        items: list[msgspec.Raw] = []
        size, version = 0, ""
        async with aclosing(self.pages(path, params)) as pages:
            async for page in pages:
                items.extend(page.items)
                size, version = size + sum(map(len, page.items)), page.resource_version
                if size > LARGEST_LIST:
                    raise self._endless(path, f"{size >> 20} MiB")
        return Page(items=tuple(items), resource_version=version)

    async def pages(
        self, path: str, params: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Page, None]:
        """Yield the whole list in pages of one resource version; raise KubeError.

        A page has fewer objects where they are large, so that it takes some memory at most. A page
        that is too large costs six requests: three with fewer objects, and three with more again.
        """
        limit, more, left = _PAGE, "", MOST_OBJECTS
        while True:
            asked = {**(params or {}), "limit": str(limit), **({"continue": more} if more else {})}
            try:
                page = await self.list(path, asked)
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // _FEWER)
                continue
            yield page
            if not page.more:
                return
            left -= limit
            if page.more == more or left <= 0:
                raise self._endless(path, f"{MOST_OBJECTS - left} objects asked for")
            more = page.more
            # Three quarters of a page, if the next objects are as large as these.
            fitting = limit * _LARGEST_PAGE * 3 // (4 * sum(map(len, page.items)) + 1)
            limit = max(1, min(_PAGE, limit * _FEWER, fitting))

    def _endless(self, path: str, had: str) -> KubeError:
        what = request_in_words("GET", path)
        return KubeError(f"{self.server} sent a list without an end to {what}: {had}.")

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Create `body` in the collection at `path`; return it as stored; raise KubeError."""
        name = body.get("metadata", {}).get("name", "")
        with self._changing("POST", f"{path}/{name}" if name else path):
            return await self._send("POST", path, body=body)

    async def ask(
        self, path: str, question: Mapping[str, Any], params: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the answer to a question that is posted, such as who may do what, or a dry-run.

        It changes nothing, and somebody waits for it: so it is asked again, at least once, where
        the server fails or cuts the connection. Raises KubeError.
        """
        reads = max(_ASKED, self._reads)
        return await self._send("POST", path, params=params, body=question, reads=reads)

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Replace the object at `path` by `body`; return it as stored; raise KubeError."""
        with self._changing("PUT", path):
            return await self._send("PUT", path, body=body)

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Merge `body` (RFC 7386) into the object at `path`; return it; raise KubeError."""
        with self._changing("PATCH", path):
            return await self._send(
                "PATCH", path, body=body, content="application/merge-patch+json"
            )

    async def patch(self, path: str, operations: Sequence[Mapping[str, Any]]) -> bytes:
        """Change the object at `path` by a JSON patch (RFC 6902); return it; raise KubeError."""
        with self._changing("PATCH", path):
            return await self._send(
                "PATCH", path, body=operations, content="application/json-patch+json"
            )

    async def delete(self, path: str, **only: str) -> bytes:
        """Delete the object at `path`; raise KubeError.

        `only` are preconditions, `uid` and `resourceVersion`: where they do not hold it is a
        conflict.
        """
        with self._changing("DELETE", path):
            return await self._send("DELETE", path, body={"preconditions": only} if only else None)

    async def watch(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        resource_version: str,
        seconds: float = WATCH_SECONDS,
        opened: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Event, None]:
        """Yield events after `resource_version`, bookmarks too, until the server ends the watch.

        The server is asked to end it after `seconds`; `opened` is called when it accepts the watch.
        Raises KubeError, `gone` if `resource_version` is too old. Close it (`contextlib.aclosing`).
        """
        asked = {
            **(params or {}),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        # Compressed, an event could wait in the server's buffer for the next one.
        plain = {**self._headers, "Accept-Encoding": "identity"}
        silence = seconds * _OVERDUE
        timeout = httpx2.Timeout(_REQUEST.write, connect=_REQUEST.connect, read=silence)
        begun = False
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(_REQUEST.read):
                    response = await stack.enter_async_context(
                        self._client.stream(
                            "GET", self._base + path, params=asked, headers=plain, timeout=timeout
                        )
                    )
                begun = True
                if response.is_error:
                    self._failed(WATCH, path)
                    body = await body_of(response, LARGEST_ANSWER)
                    raise _refusal(WATCH, path, response, body)
                opened()
                async for line in _lines(response):
                    try:
                        event = parse_event(line)
                    except TooDeep:
                        event = parse_event(await asyncio.to_thread(shallow, line))
                    if event.type == "ERROR":
                        asked_for = request_in_words(WATCH, path)
                        code = httpx2.codes.INTERNAL_SERVER_ERROR
                        raise parse_error(event.object, code, asked=asked_for)
                    yield event
        except NotKubernetes as error:
            raise KubeError(f"{self.server} sent {error}.") from error
        except TooLong as error:
            raise self._too_large(WATCH, path, LARGEST_ANSWER) from error
        except _FAILED as error:
            self._failed(WATCH, path)
            raise self._unreachable(error, silence if begun else None) from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        content: str = "application/json",
        reads: int = 0,
        most: int = LARGEST_ANSWER,
    ) -> bytes:
        headers = {**self._headers, **({"Content-Type": content} if body is not None else {})}
        data = json.dumps(body).encode() if body is not None else None
        waited, reads = 0.0, reads or (self._reads if method == "GET" else 1)
        with self._asking(method, path):
            while True:
                try:
                    return await self._sent(
                        method, path, params=params, data=data, headers=headers, most=most
                    )
                except TooLarge:
                    raise
                except KubeError as error:
                    wait = error.wait(self._jitter())
                    if not wait and reads > 1 and _may_pass(error):
                        reads -= 1
                        # A new connection needs no pause.
                        wait = 0.0 if error.unreachable else _PAUSE
                    elif not wait or waited + wait > self._patience:
                        raise
                    waited += wait
                if wait:
                    await self._sleep(wait)

    async def _sent(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None,
        data: bytes | None,
        headers: Mapping[str, str],
        most: int,
    ) -> bytes:
        """Return the answer to one request, of `most` bytes."""
        try:
            async with self._client.stream(
                method, self._base + path, params=params, content=data, headers=headers
            ) as response:
                body = await body_of(response, most)
        except TooLong as error:
            raise self._too_large(method, path, most) from error
        except _FAILED as error:
            self._failed(method, path)
            raise self._unreachable(error) from error
        if not response.is_success:
            self._failed(method, path)
            raise _refusal(method, path, response, body)
        return body

    def _too_large(self, method: str, path: str, most: int) -> TooLarge:
        much = f"more than {most >> 20} MiB for {request_in_words(method, path)}"
        return TooLarge(f"The API server at {self.server} sent {much}.")

    def _unreachable(self, error: Exception, limit: float | None = None) -> KubeError:
        """Return `error` in words; the answer had `limit` seconds, or those of any request."""
        if isinstance(error, NoCredentials):
            return KubeError(f"{error}.")
        what = no_answer(error)
        if isinstance(error, httpx2.ConnectTimeout):
            what = f"no connection within {_REQUEST.connect:g} s"
        elif isinstance(error, httpx2.TimeoutException | TimeoutError):
            what = f"no answer within {limit or _REQUEST.read:g} s"
        elif isinstance(error, httpx2.LocalProtocolError):
            # The library's words quote the header, which holds the token.
            what = "the credentials have a line end or another sign that no header may have"
        elif "CERTIFICATE_VERIFY_FAILED" in what:
            what += (
                "; its certificate is not what the kubeconfig's certificate-authority vouches for"
            )
        return KubeError(f"The API server at {self.server} cannot be asked: {what}{self._by}.")


@overload
async def together(a: Awaitable[_A], b: Awaitable[_B], /) -> tuple[_A, _B]: ...
@overload
async def together(
    a: Awaitable[_A], b: Awaitable[_B], c: Awaitable[_C], /
) -> tuple[_A, _B, _C]: ...
@overload
async def together(
    a: Awaitable[_A], b: Awaitable[_B], c: Awaitable[_C], d: Awaitable[_D], /
) -> tuple[_A, _B, _C, _D]: ...
@overload
async def together(*questions: Awaitable[_A]) -> tuple[_A, ...]: ...
async def together(*questions: Awaitable[Any]) -> tuple[Any, ...]:
    """Ask side by side; return all answers, or raise the first failure when no question is open.

    One that is open yet when its client is closed would leave its connection behind.
    """
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for each in answers:
        if isinstance(each, BaseException):
            raise each
    return tuple(answers)


def _refusal(method: str, path: str, response: httpx2.Response, body: bytes) -> KubeError:
    asked, wait = request_in_words(method, path), response.headers.get("Retry-After", "")
    return parse_error(body, response.status_code, wait, asked=asked)


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield lines split at newlines only: JSON strings may hold other line ends of Unicode."""
    rest: list[bytes] = []
    async for chunk in response.aiter_bytes():
        first, *lines = chunk.split(b"\n")
        rest.append(first)
        if sum(map(len, rest)) > _LONGEST_LINE:
            raise NotKubernetes(f"a watch event of more than {_LONGEST_LINE} bytes")
        for line in lines:
            whole = b"".join(rest)
            rest = [line]
            if whole.strip():
                yield whole
