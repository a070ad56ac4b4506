"""Node Managed Identity, the agent of a node.

server          HTTP/1.1 within limits; knows nothing of identities
request         one token request, from bytes to answer
sync            what the agent follows at the API server
reporting       log, audit log, metrics, events, and the pages for people and Prometheus
path_watch      whether pods' requests arrive here
probe_requests  the same of one pod, for an operator who asks
lifecycle       when it accepts connections, and how it ends
rules           what the settings mean for a decision
policies        what they mean for each part
main            the whole, assembled
"""
