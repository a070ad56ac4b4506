"""`python -m podidentity_sandbox.cluster`."""

from podidentity_sandbox.cluster.main import main

main()
