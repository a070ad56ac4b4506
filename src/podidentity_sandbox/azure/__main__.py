"""`python -m podidentity_sandbox.azure`: the sandbox's Azure as a process."""

from podidentity_sandbox.azure.main import main

main()
