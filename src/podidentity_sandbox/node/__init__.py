"""A node of the sandbox: a kubelet stand-in, with processes in namespaces for containers.

Reading order: `main` (composition) · `kubelet` (the node's pods) · `pods` and `containers` (their
lives), `logs` and `streams` (one run, its output and input), `probes` · `spec`, `status`,
`environment`, `contents`, `security` (pure) · `volumes` and `csi` · `processes`, `launcher` and
`rootfs` (how a program gets its own namespaces and file tree) · `server` (the kubelet's API),
`execution` and `client` (exec from the host) · `cri` (containerd in place of all that).
"""
