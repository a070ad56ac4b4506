"""How a person's command reads `/debug` of one NMI through the API server's proxy to its pod.

That proxy takes the `Authorization` of a request for itself and passes no part of it on, nor who
asks. It passes other headers on, to any program at the pod's address and port, by TLS whose
certificate it does not verify. So nothing goes by it that is worth stealing: the command asks for
a token of a service account that may get `/debug` and nothing else, for NMI of this one node.

https://github.com/kubernetes/kubernetes/blob/v1.32.3/staging/src/k8s.io/apiserver/pkg/endpoints/filters/authentication.go
https://github.com/kubernetes/kubernetes/blob/v1.32.3/cmd/kube-apiserver/app/server.go
"""

from __future__ import annotations

PATH = "/debug"
FIELD = "Podidentity-Authorization"
"""The header; its value is that of an `Authorization`: `Bearer TOKEN`."""
SECONDS = 600
"""Lifetime of the token: the shortest that the API server gives."""


METRICS_AUDIENCE = "podidentity-nmi/metrics"
"""Of Prometheus' token, which it sends to the TLS port of each node, whoever listens there."""


def audience_of(node: str) -> str:
    """Return the audience of tokens for NMI of a node; no other server takes them."""
    return f"podidentity-nmi/debug/{node}"
