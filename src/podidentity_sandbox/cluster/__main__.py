"""`python -m podidentity_sandbox.cluster`."""

import atexit
import gc

gc.disable()  # all modules stay: no garbage is looked for among them, nor at the end

from podidentity_sandbox.cluster.main import main  # noqa: E402

gc.freeze()
gc.enable()
atexit.register(gc.freeze)
main()
