"""The watched cluster in memory; a core.ports.Cluster."""

from podidentity.adapters.cluster.watched import Custom, WatchedCluster

__all__ = ["Custom", "WatchedCluster"]
