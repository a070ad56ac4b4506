"""Says what the kernel package can do with the capabilities that this program was started with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.interception import Interception, InterceptionError
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from tests.kernel.agent import WallClock


def install() -> str:
    """Return why the rules cannot be installed; "" where they can."""
    try:
        interception = Interception(Redirect(), WallClock())
        interception.install()
        interception.close()
    except InterceptionError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    inspector = ConnectionInspector(
        netns_dirs=[Path("/run/netns")], cgroups=None, listener=Endpoint("127.0.0.1", 2579)
    )
    found = {
        "install": install(),
        "networks": list(inspector.problems()),
        "cgroups": PodCgroups(Path(sys.argv[1])).check(),
    }
    sys.stdout.write(json.dumps(found))
