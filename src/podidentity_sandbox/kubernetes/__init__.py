"""A real control plane in the place of `cluster`: etcd, three programs of Kubernetes, and a proxy.

Each program is a part of the sandbox by itself. Nodes and controllers ask kube-apiserver at
203.0.113.7; pods and commands ask the proxy, at the API server's address of each sandbox.
"""
