"""An agent ends in a network namespace that loses a packet of the last connection to it.

    unshare --net python -m tests.supervisor.lossy FOLDER

Prints the name of who answers it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.supervisor.agents import agents, ask, eventually

LATE = 0.3
"""Seconds that the connection comes behind the end of the rules: a starved node forwards late. Then
the packet comes again when TCP has waited for a second, 1.3 s behind it."""
_LOSES = """
table ip lossy {{
  set seen {{ type inet_service; }}
  chain sent {{
    type filter hook output priority filter;
    tcp sport != {port} accept
    tcp flags & (syn | ack) != syn | ack accept
    tcp dport != @seen add @seen {{ tcp dport }} drop
  }}
}}
"""


def main(folder: Path) -> None:
    """Lose the first answer to each connection, and connect when the rules have gone."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with agents(folder) as start:
        agent = start("a", removes=True)
        agent.ready()
        agent.tell(signal.SIGTERM)
        eventually((agent.runtime / "leaving").exists)
        rules = _LOSES.format(port=agent.port)
        subprocess.run(["nft", "--file", "-"], input=rules, text=True, check=True)
        (agent.runtime / "over").touch()
        time.sleep(LATE)
        sys.stdout.write(f"{ask(agent.port)[0]}\n")
        assert agent.ends() == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
