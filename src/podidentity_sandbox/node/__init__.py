"""A node of the sandbox: a kubelet stand-in, with processes in namespaces for containers.

Reading order: `main` (what there is) · `kubelet` (which pods) · `pods` and `containers` (their
lives) · `spec`, `status`, `environment`, `security` (pure) · `launcher` and `rootfs` (how a program
gets a room of its own) · `execution` and `client` (exec).
"""
