"""Names for JSON, which has no narrower type in Python."""

from typing import Any

Json = Any
"""Any JSON value."""
Obj = dict[str, Any]
"""A JSON object; most often a Kubernetes object."""
