"""Formats of other systems, as pure functions from bytes to core values and back.

Each module knows one format and no other:

    kube                        lists, watches and errors of the Kubernetes API
    manifests, pods, secrets    its objects
    rbac, reviews               roles and bindings; SubjectAccessReview and TokenReview
    service_account_tokens      TokenRequest
    events                      events about pods
    imds_server, host_token     token requests of pods and of the CSI driver, and our answers
    metadata                    the other paths of IMDS
    imds_client, entra          token requests to IMDS and Entra; `oauth` is their common part
    arm, azure_environment      Azure Resource Manager; the file that describes an Azure Stack Hub
    net                         the messages between `serve` and `net`
"""

import msgspec

BROKEN_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of a msgspec decoder: other JSON than expected, no UTF-8, nesting without end."""
