"""The taints of a Node, the change that takes one of them off, and its machine's id.

Shapes: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from podidentity.wire import BROKEN_JSON


class NotANode(ValueError):
    """These bytes are no Node; the message says what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTaints:
    """The taints of one version of a Node."""

    version: str
    taints: tuple[dict[str, Any], ...]
    """As the API server has them, with fields that we do not know."""

    def has(self, key: str) -> bool:
        """Whether a taint has this key, whatever its value and effect."""
        return any(taint.get("key") == key for taint in self.taints)

    def without(self, key: str) -> dict[str, Any]:
        """Return the merge patch (RFC 7386) that leaves all others as they are.

        It names the version: the API server refuses it if the Node has changed meanwhile.
        """
        kept = [taint for taint in self.taints if taint.get("key") != key]
        return {"metadata": {"resourceVersion": self.version}, "spec": {"taints": kept or None}}


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str


class _ProviderSpec(msgspec.Struct, rename="camel"):
    provider_id: str = msgspec.field(name="providerID", default="")


class _ProviderNode(msgspec.Struct):
    spec: _ProviderSpec = msgspec.field(default_factory=_ProviderSpec)


class _Spec(msgspec.Struct):
    taints: list[dict[str, Any]] | None = None


class _Node(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)


_DECODER = msgspec.json.Decoder(_Node)
_PROVIDER = msgspec.json.Decoder(_ProviderNode)


def parse_provider_id(raw: bytes | msgspec.Raw) -> str:
    """Return the provider ID of the Node in `raw`, "" if it has none yet; raise NotANode."""
    try:
        return _PROVIDER.decode(raw).spec.provider_id
    except BROKEN_JSON as error:
        raise NotANode(f"the API server sent no Node: {error}") from error


def parse_taints(raw: bytes) -> NodeTaints:
    """Return the taints of the Node in `raw`; raise NotANode."""
    try:
        node = _DECODER.decode(raw)
    except BROKEN_JSON as error:
        raise NotANode(f"the API server sent no Node: {error}") from error
    return NodeTaints(version=node.metadata.resource_version, taints=tuple(node.spec.taints or ()))
