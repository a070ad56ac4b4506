from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from podidentity.core.errors import NotReady
from podidentity.nmi.reporting.observing import Observation, observe
from podidentity.settings import NmiSettings
from podidentity.telemetry.lines import File, Writer
from tests.fakes import FakeClock
from tests.nmi.outcomes import QUERY, granted


@asynccontextmanager
async def observing(
    folder: Path, audit: str, *, required: bool = False
) -> AsyncIterator[Observation]:
    settings = NmiSettings(node="n1", audit_log=audit, audit_required=required)
    log = Writer(File(folder / "log"), name="log")
    async with AsyncExitStack() as stack:
        stack.callback(log.close)
        yield observe(settings, FakeClock(), stack, log)


async def test_a_token_is_in_the_log_and_in_the_audit_log(tmp_path: Path) -> None:
    async with observing(tmp_path, str(tmp_path / "audit")) as seen:
        await seen.requests.token(QUERY, granted(), 200, 0.0)
    assert "INFO token given status=200" in (tmp_path / "log").read_text()
    assert json.loads((tmp_path / "audit").read_text())["decision"] == "granted"


async def test_without_the_flag_there_is_none(tmp_path: Path) -> None:
    async with observing(tmp_path, "") as seen:
        await seen.requests.token(QUERY, granted(), 200, 0.0)
        assert seen.audit is None
        seen.requests.check()


async def test_a_hang_up_opens_the_audit_log_anew_and_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with observing(tmp_path, str(path)) as seen:
        assert seen.audit is not None
        await seen.requests.token(QUERY, granted(), 200, 0.0)
        seen.audit.writer.flush()
        path.rename(tmp_path / "audit.1")
        os.kill(os.getpid(), signal.SIGHUP)
        await seen.requests.token(QUERY, granted(), 200, 0.0)
    assert len(path.read_text().splitlines()) == 1


async def test_where_the_audit_log_is_needed_no_token_is_given_without_it(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    async with observing(tmp_path, str(folder / "audit"), required=True) as seen:
        assert seen.audit is not None
        with pytest.raises(NotReady, match="audit log cannot be written"):
            seen.requests.check()
        assert seen.problems() == ("the audit log cannot be written: No such file or directory",)
        folder.mkdir()
        seen.audit.writer.flush()
        seen.requests.check()
        assert seen.problems() == ()


async def test_where_it_is_not_needed_service_goes_on(tmp_path: Path) -> None:
    async with observing(tmp_path, str(tmp_path / "later" / "audit")) as seen:
        seen.requests.check()
        assert seen.problems() == ()


async def test_an_audit_log_that_is_needed_has_a_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--audit-required needs --audit-log"):
        async with observing(tmp_path, "", required=True):
            pass
