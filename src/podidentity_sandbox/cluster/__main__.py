"""`python -m podidentity_sandbox.cluster`."""

import atexit
import gc

from podidentity_sandbox.cluster.main import main

atexit.register(gc.freeze)  # at the end all goes anyhow: no garbage is looked for
main()
