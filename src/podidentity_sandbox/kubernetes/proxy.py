"""The API server's address for pods and commands: what the weather leaves goes to kube-apiserver.

TLS ends here, and HTTP/1.1 alone is spoken. Who shows a certificate is named to kube-apiserver by
headers, which it takes from this proxy:
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy
Bearers go on as they came. kube-apiserver asks here, too, who the bearer of a person's token is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from aiohttp import web

from podidentity_sandbox.cluster.authentication import (
    NODE_PREFIX,
    NODES,
    User,
    digest,
    person_of,
    plan_users,
)
from podidentity_sandbox.cluster.cluster import clock
from podidentity_sandbox.cluster.paths import RequestInfo, request_info
from podidentity_sandbox.kubernetes.certificates import ClientCertificates, ask_clients
from podidentity_sandbox.kubernetes.overload import answer_of, befall
from podidentity_sandbox.kubernetes.programs import WEBHOOK_PORT, At
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import Blow, Effect, WeatherInForce, cut

_CHUNK = 1 << 16
_LONGEST_HEAD = 1 << 18
_BY_CERTIFICATE = ("x-remote-user", "x-remote-group", "x-remote-uid")
"""Headers in which kube-apiserver believes this proxy, and nobody else."""


def main(plan: Plan, listen: Sequence[int], ready_fd: int, at: At) -> None:
    """Serve on listening sockets, given as descriptors, until SIGTERM."""
    sockets = [socket.socket(fileno=each) for each in listen]
    with suppress(asyncio.CancelledError):
        asyncio.run(_serve(plan, sockets, ready_fd, at))


async def _serve(plan: Plan, sockets: Sequence[socket.socket], ready_fd: int, at: At) -> None:
    this = asyncio.current_task()
    assert this is not None  # noqa: S101 - a coroutine runs in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    app = web.Application()
    app.router.add_post("/", partial(_review, plan))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, at.others, WEBHOOK_PORT).start()
    proxy = Proxy(plan, at)
    for each in sockets:
        await asyncio.start_server(proxy.serve, sock=each, ssl=proxy.front, limit=_LONGEST_HEAD)
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    await asyncio.Event().wait()


async def _review(plan: Plan, request: web.Request) -> web.Response:
    """Answer a TokenReview of kube-apiserver: only a person's token is known here.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication
    """
    review = await request.json()
    user = person_of(plan, review["spec"].get("token", ""))
    status: dict[str, object] = {"authenticated": user is not None}
    if user is not None:
        status["user"] = {"username": user.name, "uid": user.name}
    return web.json_response({**review, "status": status})


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of a request."""

    method: str
    target: str
    fields: Sequence[tuple[str, str]]

    @classmethod
    def parse(cls, raw: bytes) -> _Head:
        first, *lines = raw.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines if line)
        return cls(method, target, [(name, value.strip()) for name, _, value in pairs])

    def get(self, name: str) -> str:
        return next((value for each, value in self.fields if each.lower() == name), "")

    @property
    def info(self) -> RequestInfo:
        url = urlsplit(self.target)
        return request_info(self.method, url.path, dict(parse_qsl(url.query)))

    def ended_after(self, seconds: float) -> _Head:
        """Return it as a watch that the server ends after so many seconds at most."""
        url = urlsplit(self.target)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        asked = int(query.get("timeoutSeconds") or seconds)
        query["timeoutSeconds"] = str(min(asked, max(1, round(seconds))))
        return _Head(self.method, url._replace(query=urlencode(query)).geturl(), self.fields)

    def raw(self, user: User | None, *, shown: bool) -> bytes:
        """Return its bytes, which say who it is that showed a certificate.

        A certificate that does not hold is as a token that does not: 401 without a good one.
        """
        fields = [each for each in self.fields if each[0].lower() not in _BY_CERTIFICATE]
        if shown and user is None and not self.get("authorization"):
            fields.append(("Authorization", "Bearer of-no-authority"))
        if user is not None:
            groups = [("X-Remote-Group", group) for group in user.groups]
            fields += [("X-Remote-User", user.name), *groups]
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Proxy:
    """Carries requests to kube-apiserver, each as the weather lets it."""

    def __init__(self, plan: Plan, at: At) -> None:
        self._plan = plan
        self._at = at
        self._weather = WeatherInForce(plan.path)
        self._users = plan_users(plan)
        self._certificates = ClientCertificates(plan.ca_certificate.read_text(), clock)
        self.front = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.front.load_cert_chain(plan.path / "apiserver.crt", plan.path / "apiserver.key")
        self.front.set_alpn_protocols(["http/1.1"])
        ask_clients(self.front)
        self._bearers = ssl.create_default_context(cafile=str(plan.ca_certificate))
        self._named = ssl.create_default_context(cafile=str(plan.ca_certificate))
        self._named.load_cert_chain(*plan.front_proxy_files)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        user = self._certificates.user(shown)
        back: StreamWriter | None = None
        carrying: asyncio.Task[None] | None = None
        left = asyncio.create_task(writer.wait_closed())
        try:
            while raw := await reader.readuntil(b"\r\n\r\n"):
                head = _Head.parse(raw[:-4])
                info = head.info
                blow = await self._befall(head, user or self._bearer(head), info, left)
                if blow is not None and blow.effect is Effect.RESET:
                    cut(writer.transport)
                    return
                if blow is not None:
                    await _body(head, reader, None)
                    writer.write(_answer(blow))
                    continue
                if back is None:
                    there, back = await asyncio.open_connection(
                        self._at.apiserver,
                        self._at.port,
                        ssl=self._named if user else self._bearers,
                    )
                    carrying = asyncio.create_task(_carry(there, writer))
                if info.verb == "watch" and (seconds := self._weather.seconds("watches")):
                    head = head.ended_after(seconds)
                back.write(head.raw(user, shown=bool(shown)))
                if head.get("upgrade"):
                    await _carry(reader, back)
                    return
                await _body(head, reader, back)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the client has left, or speaks no HTTP; or the API server is away
        finally:
            left.cancel()
            if carrying is not None:
                carrying.cancel()
            for each in (back, writer):
                if each is not None:
                    each.close()

    def _bearer(self, head: _Head) -> User:
        """Return the user of a bearer, or whom it impersonates, unproved: kube-apiserver proves."""
        if named := head.get("impersonate-user"):
            return User(named, (NODES,) if named.startswith(NODE_PREFIX) else ())
        token = head.get("authorization").partition(" ")[2].strip()
        if known := self._users.get(digest(token)) or person_of(self._plan, token):
            return known
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return User("system:anonymous")
        return User(str(claims.get("sub")))

    async def _befall(
        self, head: _Head, user: User, info: RequestInfo, left: asyncio.Task[None]
    ) -> Blow | None:
        """Return what befalls a request; raise ConnectionError where the client leaves before."""
        blow = asyncio.create_task(befall(self._weather, user, head.get("user-agent"), info))
        try:
            await asyncio.wait((blow, left), return_when=asyncio.FIRST_COMPLETED)
            if not blow.done():
                raise ConnectionError
            return blow.result()
        finally:
            blow.cancel()


def _answer(blow: Blow) -> bytes:
    status, kind, text = answer_of(blow)
    headers = {**blow.headers, "Content-Type": kind, "Content-Length": len(text.encode())}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", text]).encode()


async def _body(head: _Head, reader: StreamReader, back: StreamWriter | None) -> None:
    """Carry the body of a request, or leave it out where `back` is None."""

    async def carry(size: int) -> None:
        while size:
            chunk = await reader.readexactly(min(size, _CHUNK))
            size -= len(chunk)
            if back is not None:
                back.write(chunk)
                await back.drain()

    if head.get("transfer-encoding").lower() != "chunked":
        await carry(int(head.get("content-length") or 0))
        return
    size = -1
    while size:
        line = await reader.readuntil(b"\r\n")
        if back is not None:
            back.write(line)
        size = int(line.partition(b";")[0], 16)
        await carry(size + 2)


async def _carry(source: StreamReader, sink: StreamWriter) -> None:
    """Carry bytes until either end closes; then close the other."""
    with suppress(OSError):
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
    sink.close()
