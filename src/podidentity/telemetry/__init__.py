"""What the agent writes about itself, and counts.

lines        a log line, for people or for machines
logs         the standard library's log as such lines
direct_log   the same for a process that forks and has no thread
writer       a thread that writes lines to a file or a stream, in batches
log_limiter  a rate limiter of repeated lines
metrics      counters, histograms and callback gauges
exposition   metrics in Prometheus' text format
process      CPU time and memory of this process

The words of a request's line are with the request (`nmi.reporting`).
"""
