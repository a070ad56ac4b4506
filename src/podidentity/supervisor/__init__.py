"""Keeps the listening sockets of `serve`, and a worker that answers the connections.

Only the worker parses bytes of strangers. If it dies, hangs or grows, the supervisor starts the
next one at once, while connections wait in the backlog. So the supervisor must stay small: it
parses nothing, imports no library of ours, has no thread, and forks.

main         the loop: starts, watches and replaces the worker, stops in order, answers probes
worker       one worker process: its start, its limits, its reports
listeners    the listening sockets, opened or taken over
handover     how a new agent takes the listening sockets over from the agent before it
control      the messages between supervisor and worker
privileges   rights that processes give up, so that a worker cannot become more than a worker
descendants  what a worker has started: it passes for nobody else and does not outlive the worker
"""
