"""The sandbox's Kubernetes API server: strict where a real one is, so that a test means something.

Read it in this order: `status` (errors in the real server's words), `registry` (what a resource
type is), `storage` (objects and their history), `resources` (the verbs), `list_watch`, `verbs` and
`app` (HTTP), `authentication` and `authorization`, `controllers` (what happens by itself).
"""

from __future__ import annotations

from typing import Any

Json = Any
"""A JSON value; Python has no narrower type."""
Obj = dict[str, Any]
"""A JSON object."""
