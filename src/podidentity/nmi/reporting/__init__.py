"""What others learn of the agent's work.

request_log   what an answered request leaves: log line, audit record, numbers, event
metrics       every metric, on one page
events        refusals as Kubernetes events on pods
observing     how these are opened
endpoints     the pages for kubelet and Prometheus
debug         the page for people on the node
"""
