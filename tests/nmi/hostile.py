"""Raw requests as an attacker would write them, from a seed: the same seed, the same bytes.

Each is put together from parts that parsers are known to read in different ways: paths in other
encodings, heads with odd ends of lines, bodies whose length two headers tell differently, requests
inside of bodies and trailers. Most parts of a request are right, so that the odd one gets far; and
some requests are spoilt by a few random bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import TypeVar

_T = TypeVar("_T")

TOKEN = b"/metadata/identity/oauth2/token"
ASKED = TOKEN + b"?api-version=2018-02-01&resource=https://vault.azure.net"
# fmt: off
METHODS = [
    b"HEAD", b"POST", b"PUT", b"OPTIONS", b"TRACE", b"PRI", b"get", b"G\0T", b"CONNECT", b"DELETE",
    b"M-SEARCH", b"", b"GET GET",
]
GAPS = [b"  ", b"\t", b"", b"\r", b"\0"]
ORIGINS = [
    b"http://169.254.169.254", b"http://169.254.169.254:80", b"//evil", b"http:", b"HTTP://x@y",
    b"https://management.azure.com", b"169.254.169.254:80",
]
BEGINNINGS = [
    TOKEN, TOKEN + b"/", b"/" + TOKEN, b"/METADATA/identity/oauth2/token", b"/metadata/instance",
    b"/metadata/instance/compute", b"/metadata/versions", b"/metadata/identity", b"/metadata", b"/",
    b"/metadata/identity/info", b"/host/token",
]
SEPARATORS = [b"//", b"\\", b"/./", b"/../", b"%2f", b"%5C", b";/", b"/;"]
WORDS = [
    b"metadata", b"METADATA", b"identity", b"Identity", b"oauth2", b"token", b"info", b"host", b"0",
    b"instance", b"versions", b"compute", b"userData", b"vmId", b"issuecredential",
]
TRICKS = [
    b"..", b".", b"", b"%2e%2e", b"%2f", b"%5c", b"\\", b";", b"?", b"#", b"%00", b"\0", b"~", b"@",
    "\u00e9".encode(), b"\xe9", b"%c0%af", b"%252f", b"..;", b"\xef\xbc\x8f", b"%", b"%u002f", b"*",
    b"identity%2foauth2%2ftoken", b"%69dentity", b"oauth2\\token", b"\t", b" ",
]
QUERIES = [
    b"", b"?", b"?resource=https://vault.azure.net", b"?resource=a&resource=b", b"?resource=",
    b"?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net", b"?format=text", b"??",
    b"?resource=a&client_id=11111111-2222-3333-4444-555555555555", b"?a=/../", b"?resource=%00",
]
ODD_QUERIES = [b"?a b", b"?a#b", b"?\xff", b"?/..\\/metadata/identity/oauth2/token", b"?\0"]
VERSIONS = [
    b" HTTP/1.0", b"", b" HTTP/0.9", b" HTTP/2.0", b" HTTP/1.1 x", b" http/1.1", b"\tHTTP/1.1",
    b"  HTTP/1.1", b" HTTP/1.10", b" ICY/1.1",
]
HEADER = b"Metadata: true"
NO_HEADER = [
    b"X: 1", b"Metadata:", b"Metadata: false", b"X-Metadata: true", b"Metadata: true, true",
    b"X: Metadata: true", b"Metadata: tru\xe9",
]
"""Headers that a server may read, and that do not say what it wants."""
BROKEN_HEADER = [
    b"Metadata : true", b" Metadata: true", b"Metadata:\0true", b"Meta\0data: true", b"Metadata",
    b"X: y\r\n Metadata: true", b"X: y\n\tMetadata: true", b"Metadata:\r\n true\0", b": true",
    b"Metadata\xa0: true", b"Metadata;: true",
]
HEADERS = [
    b"Host: 169.254.169.254", b"Host: a\r\nHost: b", b"A:", b"A: \xff", b"A: b\rc",
    b"X-Forwarded-For: 1", b"Connection: close", b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Connection: keep-alive", b"Upgrade: websocket", b"Expect: 100-continue", b"TE: trailers",
    b"Accept: */*", b"Podns: shop", b"Podname: orders-0", b"A: " + b"x" * 3000,
]
ENDS = [b"\n", b"\r", b"\r\r\n", b"\r\n\r", b"\n\r"]
FRAMINGS = ["length", "chunked", "trailer", "both", "twice", "odd"]
FIRST = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", b"\r\n" * 3, b"\x16\x03\x01", b"\0"]
# fmt: on
SMUGGLED = b"GET " + TOKEN + b"?resource=a HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n"
_CHUNKED = b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = [
    b"GET /" + b"a" * 20_000,
    b"GET / HTTP/1.1\r\n" + b"A:b\r\n" * 4_000,
    b"\r\n" * 10_000,
    _CHUNKED + b"0\r\n" + b"A: b\r\n" * 12_000,
    _CHUNKED + b"1;" + b"a" * 70_000,
    _CHUNKED + b"1\r\na\r\n" * 12_000,
]
"""Requests without an end, as far as it matters."""


def asking(
    *more: bytes,
    method: bytes = b"GET",
    target: bytes = ASKED,
    version: bytes = b"HTTP/1.1",
    header: bytes = b"Metadata: true",
    body: bytes = b"",
) -> bytes:
    """Return a request, by default for a token and as a client would write it."""
    lines = [method + b" " + target + b" " + version, header, b"Host: 169.254.169.254", *more]
    return b"\r\n".join([*lines, b"", b""]) + body


PLAIN = asking()


class Attacker:
    """Writes requests, one stream of bytes for each connection."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - the same bytes each time are wanted

    def stream(self, *, without_header: bool) -> tuple[int, bytes]:
        """Return how many requests were written one behind the other, and their bytes.

        `without_header`: none of them has `Metadata: true` as a header, as when a pod's own web
        server is made to ask; only values, trailers and bodies may hold it.
        """
        random = self._random
        count = random.choice([1, 1, 1, 2, 3, 8])
        if without_header:
            metadata = [self._mostly(random.choice(NO_HEADER), BROKEN_HEADER) for _ in range(count)]
            return count, b"".join(self._framed(self._head(each)) for each in metadata)
        written = [self._request() for _ in range(count)]
        if self._seldom(0.03):
            written.insert(0, random.choice(FIRST))
        if self._seldom(0.002):
            written.append(random.choice(ENDLESS))
        return count, b"".join(written)

    def split(self, data: bytes) -> list[bytes]:
        """Return the packets in which it comes."""
        random = self._random
        if not data or self._seldom(0.6):
            return [data]
        if self._seldom(0.1):
            return [data[at : at + 1] for at in range(min(len(data), 200))] + [data[200:]]
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(1, 6)))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def choose(self, among: Sequence[str]) -> str:
        """Return one of them."""
        return self._random.choice(among)

    def _seldom(self, share: float) -> bool:
        return self._random.random() < share

    def _mostly(self, right: _T, odd: Sequence[_T], share: float = 0.04) -> _T:
        return self._random.choice(odd) if self._seldom(share) else right

    def _request(self) -> bytes:
        header = self._mostly(HEADER, NO_HEADER + BROKEN_HEADER, 0.1)
        written = self._framed(self._head(header))
        return self._spoilt(bytearray(written)) if self._seldom(0.15) else written

    def _head(self, metadata: bytes) -> list[bytes]:
        random = self._random
        target = self._mostly(b"", ORIGINS) + self._path()
        target += self._mostly(random.choice(QUERIES), ODD_QUERIES)
        method, version = self._mostly(b"GET", METHODS), self._mostly(b" HTTP/1.1", VERSIONS)
        lines = [method + self._mostly(b" ", GAPS, 0.02) + target + version]
        lines += [self._mostly(b"Host: x", HEADERS, 0.3) for _ in range(random.randrange(3))]
        lines.insert(random.randrange(1, len(lines) + 1), metadata)
        return lines

    def _path(self) -> bytes:
        path = self._mostly(self._random.choice(BEGINNINGS), [b"", b"*", b"metadata"], 0.02)
        for _ in range(self._random.choice([0, 0, 0, 1, 2, 5])):
            segment = self._mostly(self._random.choice(WORDS), TRICKS, 0.2)
            path += self._mostly(b"/", SEPARATORS, 0.2) + segment
        return path + b"/identity" * 300 + b"/oauth2" * 300 if self._seldom(0.005) else path

    def _framed(self, lines: list[bytes]) -> bytes:
        """Return a head and its body, which every reader must find the same end of, or refuse."""
        kind = self._mostly("none", FRAMINGS, 0.15)
        body = self._random.choice([SMUGGLED, b"x" * 20, b""])
        length = b"%d" % len(body)
        chunks = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        end = self._mostly(b"\r\n", ENDS) if kind == "none" else b"\r\n"
        coding = b"Transfer-Encoding: chunked"
        framings: dict[str, tuple[list[bytes], bytes]] = {
            "none": ([], b""),
            "length": ([b"Content-Length: " + length], body),
            "chunked": ([coding], chunks + b"0\r\n\r\n"),
            "trailer": ([coding, b"Trailer: Metadata"], chunks + b"0\r\nMetadata: true\r\n\r\n"),
            "both": ([b"Content-Length: " + length, coding], body),
            "twice": ([b"Content-Length: " + length, b"Content-Length: 0"], body),
            "odd": ([b"Content-Length: +" + length], body),
        }
        more, rest = framings[kind]
        return end.join([*lines, *more, b"", b""]) + rest

    def _spoilt(self, data: bytearray) -> bytes:
        random = self._random
        for _ in range(random.randrange(1, 5)):
            at = random.randrange(len(data))
            kind = random.randrange(4)
            if kind == 0:
                data[at] = random.randrange(256)
            elif kind == 1 and len(data) > 8:
                del data[at : at + random.randrange(1, 8)]
            elif kind == 2:
                data[at:at] = random.choice(TRICKS + ENDS)
            else:
                data[at:at] = data[random.randrange(len(data)) :][:20]
        return bytes(data)


def streams(seed: int, requests: int) -> Iterator[tuple[str, list[bytes]]]:
    """Yield who sends, and the packets of one connection, until so many requests are written."""
    attacker, written = Attacker(seed), 0
    while written < requests:
        who = attacker.choose(["plain", "plain", "forged", "stranger", "tricked"])
        count, data = attacker.stream(without_header=who == "tricked")
        written += count
        yield who, attacker.split(data)
