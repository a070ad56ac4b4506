"""Formats of other systems, as pure functions from bytes to core values and back.

Each module knows one format and no other (`entra` reads the answers that IMDS passes on, too):

    kube                        lists, watches and errors of the Kubernetes API
    manifests, pods, secrets    its objects
    rbac, reviews               roles and bindings; SubjectAccessReview and TokenReview
    service_account_tokens      TokenRequest
    debug_access                who may read `/debug` of an NMI through the API server
    events                      events about pods
    imds                        pods' requests to IMDS and our answers, ours to it and its own
    host_token                  token requests of the CSI driver, and our answers
    entra                       token requests to Entra, and its answers
    arm, azure_environment      Azure Resource Manager; the file that describes an Azure Stack Hub
    cloud_config                the cloud provider's file on a node
    leases, ledgers, pauses     who leads; what MIC attached; what people paused
    net                         the messages between `serve` and `net`
"""

import msgspec

BROKEN_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of a msgspec decoder: other JSON than expected, no UTF-8, nesting without end."""
