"""Implementations of the core's ports: one module for each neighbour, none importing another.

kube, reflector, cluster   the API server: client, list and watch, the watched objects indexed
permission_cache           decisions of the cluster's RBAC on the use of identities
path_permissions           decisions of the cluster's RBAC on /metrics and the like
imds, entra                the issuers of tokens: the node's metadata service, and Entra
token_cache                the token cache
net                        the client of `net`: facts about connections
server_certificate         the certificate of the agent's TLS port
self_signed_certificate    the program that makes one
arm, azure_login           Azure Resource Manager and the person's sign-in, for the commands
clock                      the system clock
"""
