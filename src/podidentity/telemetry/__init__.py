"""What the agent writes about itself, and counts.

lines       a log line, for people or for machines; one place for both
writing     lines on their way to a file or a stream, in batches, in nobody's way
metrics     numbers that a scrape reads
exposition  those numbers as Prometheus' text
repeats     how often the same thing is said

What is said of a request, and in which words, is with whoever answers it.
"""

from podidentity.telemetry.lines import Form, Format
from podidentity.telemetry.logs import configure, configure_unthreaded

__all__ = ["Form", "Format", "configure", "configure_unthreaded"]
