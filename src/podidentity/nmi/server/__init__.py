"""HTTP/1.1 for metadata clients: connections, parsing and limits. Knows nothing of identities."""
