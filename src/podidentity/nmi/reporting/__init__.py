"""What others learn of the agent's work: log, audit log, metrics, events, pages."""
