"""Run the driver: `python -m podidentity_sandbox.csi`."""

import atexit
import gc

gc.disable()  # all modules stay: no garbage is looked for among them, nor at the end

from podidentity_sandbox.csi.main import main  # noqa: E402 - loaded so

gc.freeze()
gc.enable()
atexit.register(gc.freeze)
main()
