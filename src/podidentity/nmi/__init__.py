"""Node Managed Identity, the agent of a node, from its decision outwards.

service     what it gets; callers: whose request it is; patience, waiting: how long it waits
host        the same for the Secrets Store CSI driver, which asks in a pod's name
answers     the one table from error to HTTP status; old_answers: the archived project's
routes      from request to answer; express: the answer of a moment ago, while it still stands
record      what is left of it: log line, audit record, numbers, event (auditing, metrics, events)
http, parsing, protocol, listener   HTTP/1.1 within limits
watches     the cluster in memory, kept up to date; secrets: those that identities name
prefetch    the tokens of pods that are new on the node
probes      what the kubelet asks; scrapes, debug: what Prometheus and people ask
main        the whole, assembled, from what policies, node, entra, tokens and observing build
"""
