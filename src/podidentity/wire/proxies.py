"""HTTP proxies as a pod's or a person's environment names them: which requests go by one.

The rules are those of Go's programs, which read the same variables, curl's where these are silent.
AKS writes the variables into pods, in both cases of letters, where a cluster has a proxy.

https://pkg.go.dev/golang.org/x/net/http/httpproxy
https://curl.se/libcurl/c/CURLOPT_NOPROXY.html
https://learn.microsoft.com/azure/aks/http-proxy
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote, urlsplit

HTTPS_PROXY = "HTTPS_PROXY"
NO_PROXY = "NO_PROXY"
_HTTPS = 443
_PORTS = {"http": 80, "https": _HTTPS}
_WANTED = (
    "it must be an HTTP proxy's URL, such as http://proxy.example.com:3128 or, with %40 for an @ "
    "in the password, http://USER:PASSWORD@proxy.example.com:3128"
)

_Address = IPv4Address | IPv6Address
_Covers = Callable[[str, _Address | None, int], bool]
"""Whether a host, its address if it is one, and its port are covered by an entry of NO_PROXY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy; as text it is its host and port, without user and password."""

    host: str
    port: int
    by_tls: bool
    """Whether the proxy itself is spoken to by TLS."""
    login: tuple[str, str] | None = field(default=None, repr=False)
    """User and password."""
    named: str = HTTPS_PROXY
    """The variable or field that names the proxy."""

    @property
    def url(self) -> str:
        """Its URL without the login."""
        return f"{'https' if self.by_tls else 'http'}://{self}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class NotAProxy(ValueError):
    """The variable names no proxy; the message has the next step, and nothing of the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """What an environment says. Parsed once; `of` is asked for each request."""

    https: Proxy | NotAProxy | None = None
    spared: tuple[_Covers, ...] = ()

    def of(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """Return the proxy for a request to a URL with these parts; raise NotAProxy.

        Nothing but HTTPS goes by a proxy: it sees the name of the server, and none of what is sent.
        Loopback and link-local addresses, IMDS's among them, are this machine's own.
        """
        if self.https is None or scheme != "https":
            return None
        host = host.lower().rstrip(".")
        address = _address(host)
        if host == "localhost" or (address and (address.is_loopback or address.is_link_local)):
            return None
        if any(covers(host, address, port or _HTTPS) for covers in self.spared):
            return None
        if isinstance(self.https, NotAProxy):
            raise self.https
        return self.https


DIRECT = Proxies()
"""No proxy."""


def parse_proxies(environment: Mapping[str, str]) -> Proxies:
    """Return what the variables say; a malformed proxy is an error of each request to it."""
    proxy = _either(environment, HTTPS_PROXY)
    spared = [_entry(each) for each in re.split(r"[,\s]+", _either(environment, NO_PROXY).lower())]
    return Proxies(
        https=_perhaps(proxy),
        spared=tuple(each for each in spared if each is not None),
    )


def _either(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name, "") or environment.get(name.lower(), "")).strip()


def parse_proxy(text: str, named: str = HTTPS_PROXY) -> Proxy:
    """Return the proxy of a URL, or of a host and port; raise NotAProxy, which says whose it is."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        raise NotAProxy(f"{named} is no URL: {_WANTED}") from None
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        # What looks like host and port is the beginning of a password.
        raise NotAProxy(f"{named} has a user or password that is not quoted: {_WANTED}")
    if scheme not in _PORTS:
        shown = scheme if scheme in {"socks4", "socks5", "socks5h"} else "another scheme"
        raise NotAProxy(f"{named} has {shown}, which is not supported: {_WANTED}")
    if not re.fullmatch(r"[a-z0-9._:-]+", host):
        raise NotAProxy(f"{named} names no host: {_WANTED}")
    login = (unquote(parts.username or ""), unquote(parts.password or ""))
    return Proxy(
        host=host,
        port=port or _PORTS[scheme],
        by_tls=scheme == "https",
        login=login if any(login) else None,
        named=named,
    )


def _perhaps(text: str) -> Proxy | NotAProxy | None:
    try:
        return parse_proxy(text) if text else None
    except NotAProxy as error:
        return error


def _entry(text: str) -> _Covers | None:
    """Return what an entry of NO_PROXY covers; None for one that covers nothing."""
    if text == "*":
        return lambda *_: True
    if "/" in text:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            return None
        return lambda _, address, __: address is not None and address in network
    host, port = _split(text)
    if not host or (port is not None and not port.isdecimal()):
        return None
    only = None if port is None else int(port)
    own = _address(host)
    if own is not None:
        return lambda _, address, asked: address == own and only in (None, asked)
    suffix = "." + host.removeprefix("*").lstrip(".")
    exact = None if host.startswith((".", "*.")) else suffix[1:]
    return lambda name, _, asked: (name.endswith(suffix) or name == exact) and only in (None, asked)


def _split(text: str) -> tuple[str, str | None]:
    """Return host and port of an entry; an IPv6 address with a port is in brackets."""
    if found := re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text):
        return found[1], found[2]
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def _address(host: str) -> _Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
