"""The Azure sign-in of the person at the shell, by azure-identity as in every Azure tool.

Only commands use it. NMI takes its tokens from IMDS and Entra and never loads azure-identity.

azure-identity waits for minutes where nobody answers, and cannot be cancelled. So it is asked in a
thread that nobody waits for: not longer than `SIGN_IN_SECONDS`, and not after Ctrl-C.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from podidentity.wire.arm import ArmError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

SIGN_IN_SECONDS = 60.0
"""A sign-in by az takes some seconds, by Entra less."""
RETRIES = 3
"""Entra is asked again so often where it cannot be reached: 6 s in all, and then it is said why."""
SIGN_IN = (
    "Run az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or run this "
    "on a machine with a managed identity."
)


class AzureLogin:
    """Tokens of the first credential that works: environment variables, az login, managed identity.

    Unlike in DefaultAzureCredential az comes before the managed identity: on a laptop there is
    none, and to find that out takes seconds.
    """

    def __init__(
        self,
        credential: TokenCredential | None = None,
        *,
        authority: str | None = None,
        trusted: str | None = None,
    ) -> None:
        """`authority` None: that of AZURE_AUTHORITY_HOST, else the public cloud; az has its own.

        `trusted` is a file with the certificates of the authorities that Entra's may be of; None:
        as azure-identity decides.
        """
        self._credential = credential
        self._authority = authority
        self._trusted = trusted

    async def token(self, scope: str) -> str:
        """Return an access token for `scope`; raise ArmError with the way to sign in."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def settle(token: str | None, error: Exception | None) -> None:
            if answer.done():
                return  # nobody waits any more
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(str(token))

        def ask() -> None:
            token, failed = None, None
            try:
                token = self._token(scope)
            except Exception as error:  # noqa: BLE001 - it is raised where the token is awaited
                failed = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, token, failed)

        threading.Thread(target=ask, name="sign-in", daemon=True).start()
        try:
            return await asyncio.wait_for(answer, SIGN_IN_SECONDS)
        except TimeoutError as error:
            raise ArmError(
                "SignIn",
                f"Nobody signs you in within {SIGN_IN_SECONDS:g} s: look at the network, at "
                f"HTTPS_PROXY, and at Azure's status. {SIGN_IN}",
            ) from error

    def _token(self, scope: str) -> str:
        if self._credential is None:
            self._credential = _chain(self._authority, self._trusted)
        from azure.core.exceptions import (  # 0.3 s, for `add` only
            AzureError,
            ClientAuthenticationError,
        )

        try:
            return self._credential.get_token(scope).token
        except ClientAuthenticationError as error:
            raise ArmError("SignIn", f"{_line(str(error))} {SIGN_IN}", status=401) from error
        except AzureError as error:
            raise ArmError("Unreachable", f"nobody signs you in: {_line(str(error))}") from error


def _chain(authority: str | None, trusted: str | None) -> TokenCredential:
    try:
        import azure.identity as azure  # see `_token`; and it is an extra
    except ImportError as error:
        raise ArmError(
            "SignIn", "azure-identity is not installed. Run pip install 'podidentity[azure]'."
        ) from error
    # It also logs each error that it raises.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    given = {"authority": authority, "connection_verify": trusted}
    return azure.ChainedTokenCredential(
        azure.EnvironmentCredential(
            retry_total=RETRIES, **{name: each for name, each in given.items() if each}
        ),
        azure.AzureCliCredential(),
        # The metadata service is asked over HTTP, and no proxy sees the token that it answers.
        azure.ManagedIdentityCredential(proxies={"http": ""}),
    )


def _line(text: str) -> str:
    """Return the message in one line, without its links to aka.ms."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and "aka.ms" not in line]
    return " ".join(kept)[:1000]
