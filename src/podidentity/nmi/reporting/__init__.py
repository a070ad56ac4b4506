"""What others learn of the agent's work.

request_log   what an answered request leaves: log line, audit record, numbers, event
audit         the audit log's records, and whether answers wait for them
metrics       every metric, on one page
instrumented  decorators that add metrics to issuers and attestor
events        refusals as Kubernetes events on pods
observing     how these are opened
endpoints     the pages for kubelet and Prometheus
debug         the page for people on the node
"""
