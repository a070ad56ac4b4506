"""`python -m podidentity_sandbox.world`: the supervisor, as `launch` starts it."""

from __future__ import annotations

import argparse
import asyncio
import atexit
import gc
import json
import logging
import os
import subprocess
from contextlib import suppress
from pathlib import Path

from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import network
from podidentity_sandbox.world.supervisor import Supervisor, programs


def main() -> None:
    """Read the options and be process 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", type=json.loads, required=True)
    for option in ("--api-fd", "--proxy-fd", "--report-fd"):
        parser.add_argument(option, type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for fd in (options.api_fd, options.proxy_fd, options.report_fd):
        os.set_inheritable(fd, False)
    plan = Plan.load(options.folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    network.make_azure()
    started = programs(plan, options.parts, api_fd=options.api_fd, proxy_fd=options.proxy_fd)

    async def supervise() -> None:
        await Supervisor(plan, started, options.report_fd, os.environ).run()

    with suppress(KeyboardInterrupt):
        asyncio.run(supervise())


if __name__ == "__main__":
    atexit.register(gc.freeze)  # at the end all goes anyhow: no garbage is looked for
    main()
