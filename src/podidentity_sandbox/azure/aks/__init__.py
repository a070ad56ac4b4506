"""AKS: the managed cluster as ARM has it, and what its pod identity add-on does in the cluster."""
