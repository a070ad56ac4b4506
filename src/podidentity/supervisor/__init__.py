"""Keeps the listening sockets of `serve`, and a worker that answers at them.

What strangers send is parsed by the worker. It may be killed, hang or grow: this process, which
parses nothing, starts the next one at once, and connections wait in the backlog meanwhile. So it
must stay small: it imports no library of ours, has no thread, and forks.

main         the loop: starts, watches and restarts the worker; stops in order; answers probes
worker       one worker process: its limits, its heartbeat, its end
listeners    the listening sockets, opened or taken over
handover     how a new agent takes the listeners over from the one before it, and gives them back
control      the words between supervisor and worker
privileges   rights that processes give up, so that a worker cannot become more than a worker
descendants  what a worker has started: it passes for nobody else and does not outlive the worker
"""
