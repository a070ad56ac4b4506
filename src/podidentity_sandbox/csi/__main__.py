"""Run the driver: `python -m podidentity_sandbox.csi`."""

import atexit
import gc

from podidentity_sandbox.csi.main import main

atexit.register(gc.freeze)  # at the end all goes anyhow: no garbage is looked for
main()
