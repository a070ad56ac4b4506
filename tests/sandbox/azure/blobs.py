"""Two accounts with blobs, and requests to them with every kind of credentials."""

from __future__ import annotations

from collections.abc import Mapping

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
        self._owner = self.token("Storage Blob Data Owner", direct.world.subscription)
        for where in ("acct/private", "other/closed", "other/full"):
            self._fill(*where.split("/"))

    def _account(self, name: str) -> StorageAccount:
        group = f"{self.direct.world.subscription}/resourceGroups/{self.direct.plan.node_group}"
        return StorageAccount(
            id=f"{group}/providers/Microsoft.Storage/storageAccounts/{name}",
            name=name,
            location="westeurope",
            tags={},
            kind="StorageV2",
            sku="Standard_LRS",
            access_tier="Hot",
            https_only=True,
            created=self.direct.clock.now,
        )

    def _fill(self, account: str, container: str) -> None:
        made = self.owner("PUT", f"/{container}?restype=container", account=account)
        assert made.status == 201, made.body
        stored = {**BLOCK, "content-type": "text/plain", "x-ms-meta-k": "v"}
        made = self.owner("PUT", f"/{container}/a.txt", stored, b"hello", account=account)
        assert made.status == 201, made.body

    def account(self, name: str = "acct") -> StorageAccount:
        found = self.direct.world.account(name)
        assert found is not None
        return found

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        account: str = "acct",
    ) -> Reply:
        """Send a request as it is, but for its version, its length and its host."""
        return self.service.handle(self.request(method, target, headers, body, account=account))

    def owner(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        account: str = "acct",
    ) -> Reply:
        """Send a request as the owner of all blobs."""
        authorized = {"authorization": self._owner, **(headers or {})}
        return self.ask(method, target, authorized, body, account=account)

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        account: str = "acct",
    ) -> Request:
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
