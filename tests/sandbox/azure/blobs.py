"""Two accounts with blobs, and requests to them with every kind of credentials."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from podidentity_sandbox.azure.blob.authorization import string_to_sign
from podidentity_sandbox.azure.blob.service import BlobService
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import StorageAccount, UserAssignedIdentity
from podidentity_sandbox.azure.tokens import Issuer
from tests.sandbox.azure.direct import Direct

STORAGE = "https://storage.azure.com"
VERSION = "2021-12-02"
BLOCK = {"x-ms-blob-type": "BlockBlob"}


class Blobs:
    """The blob service without sockets."""

    def __init__(self, direct: Direct) -> None:
        self.direct = direct
        self.service = BlobService(direct.world, direct.issuer)
        for name in ("acct", "other"):
            account = self._account(name)
            direct.world.remove(account.id)
            direct.world.put(account)
        for where in ("acct/private", "other/closed", "other/full"):
            self._fill(*where.split("/"))

    def _account(self, name: str) -> StorageAccount:
        made = [base64.b64encode(f"{name} {i}".encode() * 8).decode() for i in (1, 2)]
        group = f"{self.direct.world.subscription}/resourceGroups/{self.direct.plan.node_group}"
        return StorageAccount(
            id=f"{group}/providers/Microsoft.Storage/storageAccounts/{name}",
            name=name,
            location="westeurope",
            sku="Standard_LRS",
            access_tier="Hot",
            https_only=True,
            keys=(made[0], made[1]),
            created=self.direct.clock.now,
        )

    def _fill(self, account: str, container: str) -> None:
        made = self.signed("PUT", f"/{container}?restype=container", account=account)
        assert made.status == 201, made.body
        stored = {**BLOCK, "content-type": "text/plain"}
        made = self.signed("PUT", f"/{container}/a.txt", stored, b"hello", account=account)
        assert made.status == 201, made.body

    def account(self, name: str = "acct") -> StorageAccount:
        found = self.direct.world.account(name)
        assert found is not None
        return found

    def ask(self, method: str, target: str, *sent: Any, account: str = "acct") -> Reply:
        """Send a request with these headers and this body, by nobody unless a header says so."""
        return self.service.handle(self.request(method, target, *sent, account=account))

    def signed(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        account: str = "acct",
        key: str = "",
        age: float = 0,
    ) -> Reply:
        """Send a request that a key of the account signs, its first by default."""
        dated = {"x-ms-date": formatdate(self.direct.clock.now - age, usegmt=True)}
        request = self.request(method, target, {**dated, **(headers or {})}, body, account=account)
        secret = base64.b64decode(key or self.account(account).keys[0])
        text = string_to_sign(request, account).encode()
        signature = base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
        authorization = {"authorization": f"SharedKey {account}:{signature}"}
        return self.service.handle(replace(request, headers={**request.headers, **authorization}))

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        account: str = "acct",
    ) -> Request:
        """Return a request that has, unless the headers say else, a version and a length."""
        sent = {"x-ms-version": VERSION, "content-length": str(len(body)), **(headers or {})}
        return Request(
            method=method,
            target=target,
            host=f"{account}.blob.core.windows.net",
            headers={name: value for name, value in sent.items() if value != "none"},
            body=body,
        )

    def token(self, role: str = "", scope: str = "", audience: str = STORAGE) -> str:
        """Return the header of a new identity that has the role at the scope."""
        who = self.somebody(role, scope or self.account().id)
        return self.bearer(self.direct.issuer, who, audience)

    def somebody(self, role: str, scope: str) -> UserAssignedIdentity:
        made = self.direct.identity(f"somebody-{len(self.direct.world.principals)}")
        if role:
            self.direct.grant(role, made.principal_id, scope)
        return made

    def bearer(
        self, issuer: Issuer, who: UserAssignedIdentity, audience: str, *, lifetime: int = 3600
    ) -> str:
        principal = self.direct.world.principals[who.principal_id]
        minted = self.direct.token(audience, principal, issuer=issuer, lifetime=lifetime)
        return f"Bearer {minted}"
