"""`run_both` with two programs that say who they are, and do what a test says.

python -m tests.supervisor.both FOLDER [net code] [serve code]
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from podidentity.supervisor import privileges
from podidentity.supervisor.programs import Ready, run_both

FOLDER = Path(sys.argv[1])
CODES = dict(zip(("net", "serve"), map(int, sys.argv[2:]), strict=False))


def program(name: str, begun: Ready, uid: int | None) -> int:
    if name == "serve":
        privileges.give_up(uid)
    privileges.end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if code := CODES.get(name, 0):
        return code
    begun()
    number = len(list(FOLDER.glob(f"{name}.*")))
    status = Path("/proc/self/status").read_text()
    (FOLDER / f"{name}.{number}.part").write_text(f"{os.getpid()}\n{status}")
    (FOLDER / f"{name}.{number}.part").rename(FOLDER / f"{name}.{number}")
    while True:
        time.sleep(60)


if __name__ == "__main__":
    uid = 64_912 if privileges.may_become(64_912, reading=[Path("/etc/hostname")]) else None
    if uid is not None:
        os.chown(FOLDER, uid, uid)
    sys.exit(
        run_both(
            lambda begun: program("net", begun, uid), lambda begun: program("serve", begun, uid)
        )
    )
