"""The world: brings a sandbox up on this machine, and takes all of it away again.

On the machine's side `lifecycle` is the door: `requirements` says what is missing, `folder` holds
the sandbox's place and the lock that tells whether it lives, `blueprint` and `authority` write what
its parts agree on, `launch` starts it, `teardown` ends it, `cgroups` holds what would outlive it,
`inspection` looks at it. `api`, `kinds` and `applying` talk to its cluster.

Inside, in namespaces of its own: `supervisor` is process 1; it makes the `network`, starts the
`parts` and takes orders over a Unix socket (`control`). When process 1 ends, the kernel ends
everything that was started under it, and its namespaces and mounts are gone.
"""

from __future__ import annotations


class SandboxError(Exception):
    """What went wrong with a sandbox, and what to do about it; shown to people as it is."""
