"""Certificates of identities: opened in a process of their own, cached, and used to sign.

`cryptography` is imported when the first certificate is used: it costs the agent 3 MB, and most
nodes have no identity of type 2.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from podidentity.core.errors import TokenSourceDown
from podidentity.core.rate_limits import FairCache, kib
from podidentity.core.secrets import Secret, certificate, unusable
from podidentity.wire.entra import Client, signed, signing_input

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

MOST = 1024
"""KiB of results: opened certificates, of some two or three, and reasons why one is unusable."""
AT_ONCE = 2
SECONDS = 8.0
"""Timeout for opening one, the start of its process included."""

_LIMITS = {-signal.SIGXCPU, -signal.SIGABRT}
"""Exit statuses of the process at its limits: of CPU time, and of memory if it cannot report it."""
_COMMAND = (sys.executable, "-I", "-m", "podidentity.adapters.entra.pkcs12")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate with its key."""

    key: RSAPrivateKey = field(repr=False)
    chain: Sequence[bytes] = field(repr=False)
    """DER, its own first."""
    starts: float
    ends: float
    """Seconds since 1970."""

    def fault(self, now: float) -> str:
        """Return why it cannot be used at `now`, as a clause; "" if it can."""
        if now < self.starts:
            return f"the certificate is valid only from {_date(self.starts)} on"
        return f"the certificate expired on {_date(self.ends)}" if now >= self.ends else ""

    def assertion(self, client: Client, *, now: float, unique: str) -> str:
        """Return an assertion of `client`, signed with the key; `unique` is its `jti`."""
        text = signing_input(client, self.chain, now=now, unique=unique)
        return signed(text, _signature(self.key, text, pss=not client.adfs))


class Certificates:
    """Opens and caches the certificates in Secrets."""

    def __init__(self, command: Sequence[str] = _COMMAND, *, seconds: float = SECONDS) -> None:
        """`command` starts the process that opens one, by default `adapters.entra.pkcs12`."""
        self._command = command
        self._seconds = seconds
        self._kept: FairCache[str, Certificate | str] = FairCache(MOST)
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._of_namespace: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, secret: Secret) -> Certificate:
        """Return the certificate in the secret; raise a TokenUnavailable if it has none."""
        data, password = certificate(secret)
        found = self._kept.get(secret.digest)
        if found is None:
            found = await self._opened_in_turn(secret, data, password)
            chain = () if isinstance(found, str) else found.chain
            self._kept.put(secret.digest, found, secret.ref.namespace, kib(*chain))
        else:
            self._kept.use(secret.digest)
        if isinstance(found, str):
            raise unusable(secret, found)
        return found

    async def _opened_in_turn(
        self, secret: Secret, data: bytes, password: bytes | None
    ) -> Certificate | str:
        """Open it once; the certificates of one namespace are opened one after the other."""
        turn = self._of_namespace.setdefault(secret.ref.namespace, asyncio.Lock())
        async with turn:
            return self._kept.get(secret.digest) or await self._opened(data, password)

    async def _opened(self, data: bytes, password: bytes | None) -> Certificate | str:
        """Return the certificate, or why it cannot be used, as a clause."""
        # Errors raised here are not cached: the node may be busy or short of a resource.
        try:
            status, said = await self._asked(data, password)
        except TimeoutError:
            raise TokenSourceDown("a certificate could not be opened in time") from None
        except OSError as error:
            raise TokenSourceDown(f"a certificate could not be opened: {error.strerror}") from None
        if status in _LIMITS:
            return "it takes too much time or memory to open"
        if status != 0:
            why = f"a certificate could not be opened: the process for it ended with {status}"
            raise TokenSourceDown(why)
        answer: dict[str, Any] = json.loads(said)
        if "why" in answer:
            return str(answer["why"])
        return Certificate(
            key=_key(b64decode(answer["key"])),
            chain=[b64decode(each) for each in answer["chain"]],
            starts=answer["starts"],
            ends=answer["ends"],
        )

    async def _asked(self, data: bytes, password: bytes | None) -> tuple[int | None, bytes]:
        """Return the exit status of the process, and its output."""
        secret = None if password is None else b64encode(password).decode()
        question = json.dumps({"data": b64encode(data).decode(), "password": secret})
        pipe = asyncio.subprocess.PIPE
        async with self._turn, asyncio.timeout(self._seconds):
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
            )
            try:
                said, _ = await process.communicate(question.encode())
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        return process.returncode, said


def _key(plain: bytes) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    # The process has validated the key; to do so again would block the event loop for 90 ms.
    key = load_der_private_key(plain, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("no RSA key was opened")
    return key


def _signature(key: RSAPrivateKey, text: bytes, *, pss: bool) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256

    if not pss:
        return key.sign(text, padding.PKCS1v15(), SHA256())
    # The salt is as long as the hash: https://www.rfc-editor.org/rfc/rfc7518#section-3.5
    return key.sign(text, padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH), SHA256())


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
