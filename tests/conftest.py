"""What all tests share: one event loop, asyncio's, as in production, and properties that repeat.

`./scripts/test --randomized` tries the properties with other examples: those of a seed that it
prints, many more of them.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No limit of the clock: on a busy machine it would be of how busy that is.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples at each run: a failure can be seen again, and none comes by luck.
settings.register_profile("repeatable", settings.get_profile("any"), derandomize=True)
# Those of --hypothesis-seed alone: what an earlier run found is no part of them.
settings.register_profile(
    "randomized", settings.get_profile("any"), max_examples=1_000, database=None, print_blob=True
)
settings.load_profile(os.environ.get("PODIDENTITY_PROPERTIES", "repeatable"))

pytest_plugins = ["tests.skips", "tests.kubernetes.judge"]

# SIGTERM ends a run as Ctrl-C does: fixtures end their sandboxes. Programs that tests fork end at
# once.
signal.signal(signal.SIGTERM, signal.default_int_handler)
os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


gc.disable()  # until all tests are collected


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass by ten thousand tests, which stay until the end."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# The local addresses of the machine's own network, to which NMI adds one where it intercepts. They
# must stay as they are: 169.254.169.254 may be a real metadata service there.
_LOCAL = Path("/proc/net/fib_trie")


@pytest.fixture(autouse=True)
def _the_machines_own_network_stays_as_it_is() -> Iterator[None]:
    yield
    assert b"169.254.25.79" not in _LOCAL.read_bytes(), (
        "NMI intercepts in the machine's own network"
    )
