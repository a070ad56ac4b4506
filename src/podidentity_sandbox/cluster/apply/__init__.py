"""Server-side apply: who owns which field of an object, and what an applied configuration changes.

In the order of reading: `fieldsets` (sets of paths, as managedFields hold them), `typed` (how an
object falls into such paths, by its type), `merging` (one configuration laid over an object),
`managers` (who owns what after a write), `lastapplied` (kubectl's older way of applying),
`checking` (what cannot be applied), `tracking` (how the verbs use all of it).
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""
