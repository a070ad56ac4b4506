"""Says what the kernel package can do with the capabilities that this program was started with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.fence import Fence, InterceptionError
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from podidentity.kernel.sysctl import PROC_SYS_NET


def install() -> str:
    """Return why the rules cannot be installed; "" where they can."""
    try:
        fence = Fence(Redirect(), PROC_SYS_NET)
        fence.install()
        fence.close()
    except InterceptionError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    inspector = ConnectionInspector(
        netns_dir=Path("/run/netns"), cgroups=None, listener=Endpoint("127.0.0.1", 2579)
    )
    found = {
        "install": install(),
        "networks": list(inspector.problems()),
        "cgroups": PodCgroups(Path(sys.argv[1])).check(),
    }
    sys.stdout.write(json.dumps(found))
