"""Azure keeps its state and its keys over a restart, and tells what it cannot keep."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity_sandbox.azure.client import AzureError, AzureOperator
from podidentity_sandbox.azure.journal import FILE
from podidentity_sandbox.azure.state import Operation
from podidentity_sandbox.azure.tokens import KeyRing
from tests.sandbox.azure.conftest import running


async def test_a_restarted_azure_has_what_it_had_and_tokens_from_before_hold(folder: Path) -> None:
    async with running(folder) as cloud, AzureOperator(cloud.plan) as before:
        await before.create_group("shop")
        made = await before.create_identity("shop", "orders")
        await before.create_vault("shop", "shop-kv", readers=[made["principalId"]])
        await before.put_secret("shop-kv", "demo", "hush")
        account = await before.create_account("shop", "shopdata")
        await before.create_container("shopdata", "box")
        app = await before.make_app("till")
        await before.add_secret(app)
        gone = await before.create_identity("shop", "gone")
        await before.arm("DELETE", gone["id"])
        kept, tokens = cloud.world.kept(), dict(before._tokens)
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    async with running(folder) as cloud, AzureOperator(cloud.plan) as after:
        assert cloud.world.kept() == kept
        after._tokens = tokens
        found = await after.arm("GET", made["id"])
        assert found["properties"]["clientId"] == made["clientId"]
        assert (await after.arm("GET", account))["name"] == "shopdata"
        with pytest.raises(AzureError, match="ResourceNotFound"):
            await after.arm("GET", gone["id"])
        await after.put_secret("shop-kv", "demo", "hush again")


def test_a_first_key_that_cannot_be_kept_is_none() -> None:
    def full() -> None:
        raise OSError("no space left")

    ring = KeyRing()
    ring.keep = full
    with pytest.raises(OSError, match="no space"):
        assert ring.keys
    assert ring.pems == ()


async def test_an_order_that_aks_had_not_carried_out_is_carried_out(folder: Path) -> None:
    waiting = Operation(id="o", started_at=0, due_at=float("inf"), subject="/nothing")
    async with running(folder) as cloud, AzureOperator(cloud.plan) as before:
        cloud.world.operations["o"] = waiting
        await before.create_group("shop")
    async with running(folder) as cloud:
        assert cloud.world.operations["o"] == waiting
        assert cloud.world.orders.qsize() == 1


async def test_a_change_that_a_killed_process_wrote_by_half_is_none(folder: Path) -> None:
    async with running(folder) as cloud, AzureOperator(cloud.plan) as before:
        await before.create_group("shop")
        kept = cloud.world.kept()
        length = (folder / FILE).stat().st_size
        await before.create_group("late")
    with (folder / FILE).open("r+b") as file:
        file.truncate(length + 20)
    async with running(folder) as cloud:
        assert cloud.world.kept() == kept


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let this process write no file beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_on_a_full_disk_a_change_is_refused_and_undone_and_with_space_all_goes_on(
    folder: Path,
) -> None:
    async with running(folder) as cloud, AzureOperator(cloud.plan) as operator:
        await operator.create_group("shop")
        kept, written = cloud.world.kept(), (folder / FILE).read_bytes()
        with files_of_at_most(len(written) + 10), pytest.raises(AzureError) as refused:
            await operator.create_identity("shop", "orders")
        assert (refused.value.status, refused.value.code) == (500, "InternalServerError")
        assert "cannot keep the change" in str(refused.value)
        assert cloud.world.kept() == kept
        assert (folder / FILE).read_bytes() == written
        made = await operator.create_identity("shop", "orders")
    async with running(folder) as cloud, AzureOperator(cloud.plan) as after:
        assert (await after.arm("GET", made["id"]))["name"] == "orders"
