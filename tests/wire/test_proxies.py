"""Which requests go by a proxy: tables by Go's rules, and what the errors must not say."""

from __future__ import annotations

import pytest

from podidentity.wire.proxies import DIRECT, NotAProxy, parse_proxies

PROXY = "http://proxy.example.com:3128"
ENTRA = "login.microsoftonline.com"


def by(no_proxy: str, host: str, port: int | None = None, scheme: str = "https") -> str:
    """Return the proxy of a request as text; "direct" for none."""
    found = parse_proxies({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}).of(scheme, host, port)
    return str(found) if found else "direct"


@pytest.mark.parametrize(
    ("no_proxy", "host", "port"),
    [
        ("*", ENTRA, None),
        ("10.0.0.1, *", ENTRA, None),
        (ENTRA, ENTRA, None),
        (ENTRA.upper(), ENTRA, None),
        (ENTRA, ENTRA.title() + ".", None),
        ("microsoftonline.com", ENTRA, None),
        (".microsoftonline.com", ENTRA, None),
        ("*.microsoftonline.com", ENTRA, None),
        (f"{ENTRA}:443", ENTRA, None),
        (".microsoftonline.com:443", ENTRA, 443),
        ("microsoftonline.com:8443", ENTRA, 8443),
        ("a.example.com b.example.com\tc.example.com", "b.example.com", None),
        (",, ,c.example.com,", "c.example.com", None),
        ("10.0.0.0/8", "10.240.0.4", None),
        ("10.0.0.7/8", "10.240.0.4", None),
        ("10.240.0.4", "10.240.0.4", None),
        ("10.240.0.4:443", "10.240.0.4", None),
        ("fd00::/8", "fd12::1", None),
        ("fd12::1", "fd12:0::1", None),
        ("[fd12::1]", "fd12::1", None),
        ("[fd12::1]:443", "fd12::1", None),
        ("", "localhost", None),
        ("", "LOCALHOST.", 8443),
        ("", "127.0.0.1", None),
        ("", "127.9.9.9", 8443),
        ("", "::1", None),
        ("", "169.254.169.254", None),
        ("", "fe80::1", None),
    ],
)
def test_what_no_proxy_spares_and_what_is_this_machines_own_is_asked_directly(
    no_proxy: str, host: str, port: int | None
) -> None:
    assert by(no_proxy, host, port) == "direct"


@pytest.mark.parametrize(
    ("no_proxy", "host", "port"),
    [
        ("", ENTRA, None),
        ("softonline.com", ENTRA, None),
        (f"x.{ENTRA}", ENTRA, None),
        ("*softonline.com", ENTRA, None),
        (".example.com", "example.com", None),
        ("*.example.com", "example.com", None),
        (f"{ENTRA}:8443", ENTRA, None),
        (f"{ENTRA}:443", ENTRA, 8443),
        ("10.0.0.0/8", "11.0.0.1", None),
        ("10.0.0.0/8", "10.example.com", None),
        ("10.0.0.0/8", "fd12::1", None),
        ("fd00::/8", "10.0.0.1", None),
        ("10.240.0.4", "10.240.0.40", None),
        ("localhost", ENTRA, None),
        ("10.0.0.0/99", "10.0.0.1", None),
        (":443", ENTRA, None),
        (f"{ENTRA}:https", ENTRA, None),
        ("[fd12::1", "fd12::1", None),
        ("*.*", ENTRA, None),
        ("10.240.0.4:8443", "10.240.0.4", None),
        (":443", "", None),
    ],
)
def test_all_else_goes_by_the_proxy(no_proxy: str, host: str, port: int | None) -> None:
    assert by(no_proxy, host, port) == "proxy.example.com:3128"


def test_only_https_goes_by_a_proxy() -> None:
    assert by("", "adfs.example.com", scheme="http") == "direct"
    only_http = parse_proxies({"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY})
    assert only_http.of("https", ENTRA, None) is None
    assert DIRECT.of("https", ENTRA, None) is None


@pytest.mark.parametrize(
    ("value", "url", "login"),
    [
        (PROXY, PROXY, None),
        (f" {PROXY}/ ", PROXY, None),
        ("proxy:3128", "http://proxy:3128", None),
        ("proxy", "http://proxy:80", None),
        ("https://proxy", "https://proxy:443", None),
        ("http://[fd00::7]:3128", "http://[fd00::7]:3128", None),
        ("HTTP://me:p%40ss@proxy:3128", "http://proxy:3128", ("me", "p@ss")),
        ("http://me@proxy:3128", "http://proxy:3128", ("me", "")),
    ],
)
def test_a_proxy_is_named_by_a_url_or_by_host_and_port(
    value: str, url: str, login: tuple[str, str] | None
) -> None:
    found = parse_proxies({"https_proxy": value}).of("https", ENTRA, None)
    assert found is not None
    assert (found.url, found.login) == (url, login)
    assert "p@ss" not in f"{found} {found!r}"


@pytest.mark.parametrize(
    "value",
    [
        "http://me:s3cret@:3128",
        "http://me:s3cret@proxy:port",
        "http://me:s3cret@pro xy:3128",
        "http://me:99/s3cret@proxy:3128",
        "http://me:99#s3cret@proxy:3128",
        "http://me:[s3cret@proxy:3128",
        "socks5://me:s3cret@proxy:1080",
        "s3cret://proxy:3128",
    ],
)
def test_a_malformed_proxy_is_an_error_of_the_requests_to_it_that_shows_no_password(
    value: str,
) -> None:
    found = parse_proxies({"HTTPS_PROXY": value, "NO_PROXY": "spared.example.com"})
    assert found.of("https", "spared.example.com", None) is None
    with pytest.raises(NotAProxy, match=r"HTTPS_PROXY.*it must be an HTTP proxy's URL") as caught:
        found.of("https", ENTRA, None)
    assert "s3cret" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {found!r}"


@pytest.mark.parametrize(
    ("scheme", "shown"),
    [
        ("socks4", "socks4"),
        ("SOCKS5", "socks5"),
        ("socks5h", "socks5h"),
        ("s3cret", "another scheme"),
    ],
)
def test_a_kind_of_proxy_that_is_not_supported_is_named_where_it_cannot_be_a_secret(
    scheme: str, shown: str
) -> None:
    with pytest.raises(NotAProxy, match=f"HTTPS_PROXY has {shown}, which is not supported"):
        parse_proxies({"HTTPS_PROXY": f"{scheme}://proxy:1080"}).of("https", ENTRA, None)


def test_a_variable_in_capitals_comes_first_and_an_empty_one_says_nothing() -> None:
    both = {"HTTPS_PROXY": "http://a", "https_proxy": "http://b"}
    assert str(parse_proxies(both).of("https", ENTRA, None)) == "a:80"
    assert str(parse_proxies({**both, "HTTPS_PROXY": ""}).of("https", ENTRA, None)) == "b:80"
    assert parse_proxies({"HTTPS_PROXY": " "}).of("https", ENTRA, None) is None
