"""What others learn of the agent's work.

request_log   what an answered request leaves: log line, audit record, numbers, event
metrics       every metric, on one page
events        refusals and warnings as Kubernetes events
observing     how these are opened
endpoints     the pages for kubelet and Prometheus
debug         the page for people on the node
"""
