"""Server-side apply: who owns which field of an object, and what an applied configuration changes.

In the order of reading: `fieldsets` (sets of paths, as managedFields hold them), `typed` (how an
object falls into such paths, how a configuration is validated and merged into an object),
`managers` (who owns what after a write; kubectl's client-side apply; their use by the verbs).
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""
