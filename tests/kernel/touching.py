"""Says, in a network of its own, whether what a command changes may concern our rules."""

from __future__ import annotations

import subprocess
import sys

from podidentity.kernel.drift import routing_touched, subscribe_routing

BEFORE = (
    "ip link add eth0 type veth peer name peer && ip address add 10.240.0.4/24 dev eth0"
    " && ip link set eth0 up && ip link set peer up"
)

if __name__ == "__main__":
    subprocess.run(["sh", "-ec", BEFORE], check=True)
    with subscribe_routing() as notices:
        subprocess.run(["sh", "-ec", sys.argv[1]], check=True)
        sys.stdout.write(f"{routing_touched(notices, '169.254.169.254')}\n")
