"""The stage of NMI's benchmarks: one node with real packets, a strict cluster and Azure, a load.

The sandbox's own API server and Azure run beside the real agent in namespaces of one process, with
pods that are network namespaces and cgroups and nothing else: so a thousand fit on a node, the
agent has a core of its own, and everything else, the load included, has the other.
"""
