"""Becomes a program of Kubernetes: `python -m podidentity_sandbox.kubernetes PART --folder …`."""

from podidentity_sandbox.kubernetes.main import main

main()
