"""A node of the sandbox: a kubelet stand-in, with processes in namespaces for containers.

Reading order: `main` (what there is) · `kubelet` (which pods) · `pods` and `containers` (their
lives), `runs` and `console` (one run and its streams), `health` (probes) · `spec`, `status`,
`environment`, `contents`, `security` (pure) · `volumes` with `contentvolumes` and `csivolumes` ·
`launcher` and `rootfs` (how a program gets a room of its own) · `server` and `streams` (the
kubelet's API), `execution` and `client` (exec from the host).
"""
