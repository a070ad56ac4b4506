"""`python -m podidentity_sandbox.node`."""

import atexit
import gc

from podidentity_sandbox.node.main import main

atexit.register(gc.freeze)  # at the end all goes anyhow: no garbage is looked for
main()
