"""The way to Azure over HTTPS: directly or by the environment's proxy, and why one fails.

Every request to Entra, to Azure Resource Manager and to an issuer goes this way, in every program.
The metadata service, the agents and the API server have clients of their own: none of them is ever
asked by a proxy of the environment.

A proxy gets CONNECT with a host and a port, and then the bytes of TLS. httpx2 speaks with it; which
requests go by it is decided in `wire.proxies`, because httpx2 knows neither that 443 is the port of
HTTPS where NO_PROXY has it, nor that loopback is no proxy's business.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2

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
        self._pools: dict[Proxy | None, httpx2.AsyncHTTPTransport] = {}

    async def aclose(self) -> None:
        """Close all connections."""
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

    def _pool(self, proxy: Proxy | None) -> httpx2.AsyncHTTPTransport:
        if proxy not in self._pools:
            if self._context is None:
                self._context = _trusted(self._trust)
            self._pools[proxy] = httpx2.AsyncHTTPTransport(
                verify=self._context,
                trust_env=False,
                limits=self._limits,
                proxy=_reached(proxy, self._context) if proxy else None,
            )
        return self._pools[proxy]


def _reached(proxy: Proxy, context: ssl.SSLContext) -> httpx2.Proxy:
    return httpx2.Proxy(proxy.url, ssl_context=context if proxy.by_tls else None, auth=proxy.login)


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
    except httpx2.ProxyError as error:
        raise httpx2.ProxyError(_answered(proxy, str(error))) from error
    except httpx2.ConnectError as error:
        if (untrusted := _untrusted(error)) is not None:
            raise httpx2.ConnectError(untrusted) from error
        if proxy is None:
            raise
        what = str(error) or "no connection"
        raise httpx2.ProxyError(
            f"the proxy {proxy} of HTTPS_PROXY cannot be reached: {what}; is it up, and may this "
            "machine or pod connect to it? Names that need no proxy belong into NO_PROXY"
        ) from error
    except httpx2.TimeoutException as error:
        if proxy is None:
            raise
        what = str(error) or f"no answer in time ({type(error).__name__})"
        raise type(error)(f"{what}, by the proxy {proxy} of HTTPS_PROXY") from error


def _answered(proxy: Proxy | None, said: str) -> str:
    """Return the text for a proxy that refuses CONNECT; `said` begins with its status."""
    status, _, reason = said.partition(" ")
    words = "".join(each for each in reason if each.isprintable())[:_LONGEST].strip()
    answer = f"the proxy {proxy} of HTTPS_PROXY answers {status}{f' ({words})' if words else ''}"
    steps = {
        "407": "it wants a user and a password: give them as http://USER:PASSWORD@HOST:PORT, with "
        "%40 for an @ in the password",
        "403": "have it let this name through, or put the name into NO_PROXY",
    }
    return f"{answer}: {steps.get(status, 'it may not reach the name itself; see its own log')}"


def _untrusted(error: BaseException) -> str | None:
    """Return the text for a certificate that is not trusted; None for another error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    return f"its certificate is not trusted: {cause.verify_message}; {_AUTHORITIES}"
