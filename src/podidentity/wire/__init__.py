"""Formats of other systems, as pure functions from bytes to core values and back.

Each page knows one format and no other: kube (lists, watches, errors), manifests (objects),
imds_server, host_token (what pods and the CSI driver ask and get), imds_client, entra (what we ask
and get; oauth: what both have in common), reviews, grants (RBAC), metadata (paths), arm, …
"""
