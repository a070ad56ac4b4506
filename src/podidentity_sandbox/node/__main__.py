"""`python -m podidentity_sandbox.node`."""

from podidentity_sandbox.node.main import main

main()
