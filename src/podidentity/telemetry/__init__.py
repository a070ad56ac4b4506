"""What the agent writes about itself, and counts.

lines        a log line, for people or for machines
logs         the standard library's log as such lines
writer       a thread that writes lines to a file or a stream, in batches
log_limiter  a rate limiter of repeated lines
metrics      counters, histograms and callback gauges
exposition   metrics in Prometheus' text format
process      CPU time and memory of this process

The words of a request's line are with the request (`nmi.reporting`).
"""

from podidentity.telemetry.lines import Form, Format
from podidentity.telemetry.logs import configure, configure_unthreaded

__all__ = ["Form", "Format", "configure", "configure_unthreaded"]
