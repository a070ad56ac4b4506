"""The privileged half of the agent: it sets and repairs the node's rules, and inspects connections.

It runs as root with NET_ADMIN, SYS_ADMIN and DAC_READ_SEARCH. So it knows little: it has no API
token and no secret, knows no pod, listens on no TCP port and parses nothing that a pod sends.
`serve` asks it questions over a Unix socket and can give it no orders.

main         the program
server       the Unix socket for `serve`
path_probe   sends a request of its own from a pod's network, to see where it arrives
rules_lock   decides which of two agents repairs the rules during an update
"""
