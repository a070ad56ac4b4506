"""A node whose containers are those of a real container runtime: containerd with runc or crun.

The kubelet is the same as that of every node of the sandbox; here it asks a container runtime by
CRI for what it otherwise does itself.

    machine      process 1 of the node: its namespaces and cgroup, containerd, the kubelet
    containerd   its configuration, its pods' network, its images, and the programs beside it
    client       CRI, the kubelet's protocol to container runtimes (gRPC over a Unix socket)
    requests     from a pod's spec to requests of CRI; pure
    cgroups      the pods' cgroups, named as a kubelet names them with each of its drivers
    sandboxes    pods as the runtime knows them: their network namespace, their address
    containers   a container's life
    static       pods that a file on the node describes, and their mirrors in the API server

The programs are Debian's, unpacked by `scripts/setup-runtime` and not installed. The node has
namespaces and a cgroup of its own: nothing is done at the machine's root, and all ends with the
node's first process.
"""
