"""The watches of the API server (pods, custom resources, secrets), and prefetching of tokens."""
