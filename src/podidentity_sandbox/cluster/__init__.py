"""The sandbox's Kubernetes API server: strict where a real one is, so that a test means something.

Read it in this order: `status` (errors in the real server's words), `registry` (what a resource
type is), `storage` (what is kept, and its history), `resources` (the verbs), `watch`, `app`
(HTTP), `access` and its neighbours (who may do what), `controllers` (what happens by itself).
"""
