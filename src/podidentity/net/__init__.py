"""The privileged half of the agent: sets and repairs the node's rules, states facts of connections.

It runs as root with NET_ADMIN, SYS_ADMIN and DAC_READ_SEARCH, and for that it knows little: no API
token, no secret, no pod; it listens on no TCP port and parses nothing that a pod sends. `serve`
asks it over a Unix socket, and can make it do nothing but answer.

main         the program
server       the socket that `serve` asks at
rules_lock   which of two agents on a node repairs the rules, during an update
"""
