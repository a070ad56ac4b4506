"""The world: brings a sandbox up on this machine, and takes all of it away again.

On the machine's side `lifecycle` starts and ends a sandbox: `requirements` says what the machine
lacks, `folder` holds the sandbox's files and the lock that tells whether it runs, `blueprint` and
`authority` write the plan and the certificates of its parts, `cgroups` makes and removes their
cgroups, `inspection` reports its state. `api` and `apply` talk to its cluster, `environment` leads
the operator's programs to it.

Inside, in namespaces of its own: `supervisor` is process 1; it makes the `network`, starts the
`parts` and takes orders over a Unix socket. When process 1 ends, the kernel ends
everything that was started under it, and its namespaces and mounts are gone.
"""

from __future__ import annotations


class SandboxError(Exception):
    """A failure of a sandbox, with the next step for the person; shown as it is."""
