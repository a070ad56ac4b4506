"""`python -m podidentity_sandbox.azure`: the sandbox's Azure as a process."""

import atexit
import gc

from podidentity_sandbox.azure.main import main

atexit.register(gc.freeze)  # at the end all goes anyhow: no garbage is looked for
main()
