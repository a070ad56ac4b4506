"""Objects as tables: what `kubectl get` prints is decided by the server, row by row.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""
