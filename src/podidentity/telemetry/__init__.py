"""What the agent writes about itself, and counts.

lines        a log line, for people or for machines, and the thread that writes lines
logs         the standard library's log as such lines
log_limiter  a rate limiter of repeated lines
metrics      counters, histograms and callback gauges, and their text for Prometheus
process      CPU time and memory of this process

The words of a request's line are with the request (`nmi.reporting`).
"""
