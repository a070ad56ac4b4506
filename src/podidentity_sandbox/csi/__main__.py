"""Run the driver: `python -m podidentity_sandbox.csi`."""

from podidentity_sandbox.csi.main import main

main()
