"""Node Managed Identity, the agent of a node, from its decision outwards.

service     whose request it is, what it gets, how long it waits
host        the same for the Secrets Store CSI driver, which asks in a pod's name
waiting     for what the watch may tell yet
answers     the one table from error to HTTP status
routes      from request to answer
record      what is left of it: log line, audit record, numbers, event
http, protocol, listener   HTTP/1.1 within limits
watches     the cluster in memory, kept up to date
probes      what the kubelet asks; scrapes, debug: what Prometheus and people ask
main        the whole, assembled
"""
