"""Says, in a network of its own, where connections to IMDS are led, by each kind of route to it.

Prints a JSON object: for each kind where to (null: nowhere else), and how many segments were sent.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from podidentity.kernel.connecting import led_to
from podidentity.kernel.sock_diag import Endpoint

IMDS = Endpoint("169.254.169.254", 80)
ROUTES = {
    "no route": "ip link set lo up",
    "default route": (
        "ip link add eth0 type veth peer name peer && ip address add 10.240.0.4/24 dev eth0"
        " && ip link set eth0 up && ip link set peer up && ip route add default via 10.240.0.1"
    ),
    "host route": "ip route add 169.254.169.254 via 10.240.0.1",
    "on this link": "ip route add 169.254.0.0/16 dev eth0",
    "here": "ip address add 169.254.169.254/32 dev lo",
}


def segments() -> int:
    """Return how many TCP segments this network has sent."""
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if "Tcp:" in line
    )
    return int(values[names.index("OutSegs")])


if __name__ == "__main__":
    found = {}
    for kind, command in ROUTES.items():
        subprocess.run(["sh", "-ec", command], check=True)
        before = segments()
        found[kind] = [led_to(IMDS), segments() - before]
    sys.stdout.write(json.dumps(found))
