"""podidentity: identity for pods on Azure, without secrets and without changing a line of the pod.

Read in this order: `core` (the rules, pure), `wire` (formats of other systems), `kernel` (what
needs privilege on a node), `adapters` (one neighbour each), `nmi` (the node agent), `cli`.
"""

__version__ = "0.2.0"
