"""The judge: a Kubernetes API server, an Azure, nodes and pods, on one machine.

Real packets, TLS and signatures; only processes stand in for containers, and namespaces for nodes.
Nothing here is shared with the product but its manifests: one misreading must not hide on both
sides. Read `plan` first, then `world`, then the part that you care for.
"""

__version__ = "0.2.0"
