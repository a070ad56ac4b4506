"""Sets NMI's rules in this network and prints what is wrong and what is missing then, as JSON.

python3 -m tests.kernel.refusing [NODE_ADDRESS]
"""

from __future__ import annotations

import json
import sys
from contextlib import closing

from podidentity.kernel.interception import Interception, InterceptionError, Redirect
from tests.kernel.agent import WallClock

if __name__ == "__main__":
    redirect = Redirect(node_address=sys.argv[1] if sys.argv[1:] else "")
    with closing(Interception(redirect, WallClock())) as interception:
        said = ""
        try:
            interception.install()
        except InterceptionError as error:
            said = str(error)
        found = [said, interception.problems(), interception.warnings()]
    print(json.dumps(found))  # noqa: T201
