"""The way to Azure over HTTPS: directly or by the environment's proxy, and why one fails.

Every request to Entra, to Azure Resource Manager and to an issuer goes this way, in every program.
The metadata service, the agents and the API server have clients of their own: none of them is ever
asked by a proxy of the environment.

A proxy gets CONNECT with a host and a port, and then the bytes of TLS. Which requests go by it is
decided in `wire.proxies`, because httpx2 knows neither that 443 is the port of HTTPS where NO_PROXY
has it, nor that loopback is no proxy's business. Proxies are asked below httpcore2's pool, in
`_Connecting`: its own way leaves a connection in the pool for ever if TLS fails behind the proxy,
and with as many as it may have nobody is asked any more
(https://github.com/encode/httpcore/issues/1023).
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import httpx2

from podidentity.bounded_answers import no_answer
from podidentity.wire.proxies import DIRECT, NotAProxy, Proxies, Proxy

_IDLE_SECONDS = 60.0
"""An idle connection is closed then."""
_LONGEST = 100
"""Characters of a proxy's own words that are repeated."""
_AUTHORITIES = (
    "where a proxy or firewall opens TLS, its authority's certificate must be in the file that "
    "SSL_CERT_FILE names, beside the public ones"
)


class AzureTransport(httpx2.AsyncBaseTransport):
    """Sends the requests of a client or of several; it may be closed more than once.

    Its errors are httpx2's, with cause and next step.
    """

    def __init__(
        self,
        proxies: Proxies = DIRECT,
        *,
        trust: Callable[[], ssl.SSLContext] = httpx2.create_ssl_context,
        connections: int = 20,
    ) -> None:
        """`connections` may be open at once; a fifth of them may stay, idle.

        `trust` is called at first use: the machine's root certificates take 1 MB of memory. By
        default they are those of SSL_CERT_FILE or SSL_CERT_DIR, else the machine's.
        """
        self._proxies = proxies
        self._trust = trust
        self._limits = httpx2.Limits(
            max_connections=connections,
            max_keepalive_connections=max(1, connections // 5),
            keepalive_expiry=_IDLE_SECONDS,
        )
        self._context: ssl.SSLContext | None = None
        self._pools: dict[Proxy | None, _Pool] = {}

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; raise httpx2.TransportError."""
        url = request.url
        try:
            proxy = self._proxies.of(url.scheme, url.host, url.port)
        except NotAProxy as error:
            raise httpx2.ProxyError(str(error)) from None
        with _worded(proxy):
            return await self._pool(proxy).handle_async_request(request)

    def _pool(self, proxy: Proxy | None) -> _Pool:
        if proxy not in self._pools:
            if self._context is None:
                self._context = _trusted(self._trust)
            self._pools[proxy] = _Pool(
                _Connecting(proxy, self._context), self._context, self._limits
            )
        return self._pools[proxy]


class _Pool(httpx2.AsyncHTTPTransport):
    """httpx2's own transport, whose connections are made by `_Connecting`."""

    def __init__(
        self, connecting: _Connecting, context: ssl.SSLContext, limits: httpx2.Limits
    ) -> None:
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=connecting,
        )


class _Connecting(httpcore2.AnyIOBackend):
    """Makes connections, by the proxy if there is one; one that fails is closed.

    Nothing of a request is sent to a proxy that does not let it through: its errors are ProxyError,
    and ConnectTimeout.
    """

    def __init__(self, proxy: Proxy | None, context: ssl.SSLContext) -> None:
        self._proxy = proxy
        self._context = context

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        proxy = self._proxy
        to = (proxy.host, proxy.port) if proxy else (host, port)
        try:
            stream: httpcore2.AsyncNetworkStream = _Stream(
                await super().connect_tcp(*to, timeout, local_address, socket_options)
            )
            if proxy is None:
                return stream
            if proxy.by_tls:
                stream = await stream.start_tls(self._context, proxy.host, timeout)
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            if proxy is None:
                raise
            raise _unreached(proxy, error) from error
        try:
            await _tunnel(
                stream, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", timeout
            )
        except BaseException:
            await stream.aclose()
            raise
        return stream


async def _tunnel(
    stream: httpcore2.AsyncNetworkStream, proxy: Proxy, target: str, seconds: float | None
) -> None:
    """Have the proxy lead a connection to HOST:PORT."""
    headers = [("Host", target)]
    if proxy.login:
        login = base64.b64encode(":".join(proxy.login).encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {login}"))
    url = httpcore2.URL(scheme="http", host=proxy.host, port=proxy.port, target=target)
    limits = {"timeout": {"read": seconds, "write": seconds}}
    connection = httpcore2.AsyncHTTP11Connection(url.origin, stream)
    try:
        answer = await connection.handle_async_request(
            httpcore2.Request("CONNECT", url, headers=headers, extensions=limits)
        )
    except (
        httpcore2.TimeoutException,
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
    ) as error:
        raise _unreached(proxy, error) from error
    if answer.status // 100 != 2:
        reason = answer.extensions["reason_phrase"].decode("ascii", "ignore")
        raise httpcore2.ProxyError(_answered(proxy, answer.status, reason))


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection before TLS. Where that fails it is closed, also if its task is cancelled."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's signature
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's signature
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's signature
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore2's signature
        return self._stream.get_extra_info(info)


def _trusted(trust: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    try:
        return trust()
    except OSError as error:  # ssl.SSLError is one
        what = error.strerror or type(error).__name__
        raise httpx2.ConnectError(
            f"the certificates that it may have cannot be read: {what}; {_AUTHORITIES}"
        ) from error


@contextmanager
def _worded(proxy: Proxy | None) -> Iterator[None]:
    """Give errors their cause and next step. Nothing of them holds the proxy's password."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ProxyError) as error:
        by_proxy = isinstance(error, httpx2.ProxyError)
        if (why := _untrusted(error)) is not None:
            whose = (
                f"the certificate of the proxy {proxy} of HTTPS_PROXY"
                if by_proxy
                else "its certificate"
            )
            raise type(error)(f"{whose} is not trusted: {why}; {_AUTHORITIES}") from error
        if proxy is None or by_proxy:
            raise
        what = str(error) or "the connection ended"
        raise httpx2.ConnectError(
            f"TLS fails behind the proxy {proxy} of HTTPS_PROXY: {what}; may the proxy reach the "
            "name itself? See its own log"
        ) from error
    except httpx2.TimeoutException as error:
        if proxy is None or str(error):
            raise
        what = f"no answer in time ({type(error).__name__})"
        raise type(error)(f"{what}, by the proxy {proxy} of HTTPS_PROXY") from error


def _unreached(proxy: Proxy, error: Exception) -> Exception:
    late = isinstance(error, httpcore2.TimeoutException)
    ended = "no answer in time" if late else "the connection ended"
    what = no_answer(error) if str(error) else ended
    return (httpcore2.ConnectTimeout if late else httpcore2.ProxyError)(
        f"the proxy {proxy} of HTTPS_PROXY cannot be reached: {what}; is it up, and may this "
        "machine or pod connect to it? Names that need no proxy belong into NO_PROXY"
    )


def _answered(proxy: Proxy, status: int, reason: str) -> str:
    """Return the text for a proxy that refuses CONNECT."""
    words = "".join(each for each in reason if each.isprintable())[:_LONGEST].strip()
    answer = f"the proxy {proxy} of HTTPS_PROXY answers {status}{f' ({words})' if words else ''}"
    steps = {
        407: "it wants a user and a password: give them as http://USER:PASSWORD@HOST:PORT, with "
        "%40 for an @ in the password",
        403: "have it let this name through, or put the name into NO_PROXY",
    }
    return f"{answer}: {steps.get(status, 'it may not reach the name itself; see its own log')}"


def _untrusted(error: BaseException) -> str | None:
    """Return why a certificate is not trusted; None for another error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else str(cause.verify_message)
