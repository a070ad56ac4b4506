"""One neighbour each, none knowing another; what the core's ports promise is kept here.

kube, reflector, cluster   the API server: asked, followed, and remembered by address and selector
permissions                what the cluster's RBAC lets service accounts use
imds, entra                where tokens come from: the node's metadata service, Azure's own
tokencache                 tokens, kept while they are good
arm, azure_login           Azure's resource manager, for the commands
clock                      the real time
"""
