"""The system clock."""

from __future__ import annotations

import asyncio
from time import monotonic as _monotonic
from time import time as _time


class SystemClock:
    """A core.ports.Clock of this machine."""

    # The system's own functions, not wrapped: each request asks several times.
    time = staticmethod(_time)
    monotonic = staticmethod(_monotonic)
    sleep = staticmethod(asyncio.sleep)
