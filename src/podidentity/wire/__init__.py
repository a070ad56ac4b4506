"""Formats of other systems, as pure functions from bytes to core values and back.

Each page knows one format and no other: kube (lists, watches, errors), manifests (objects),
imds_server (what pods ask and get), imds_client (what we ask and get), metadata (paths), arm.
"""
