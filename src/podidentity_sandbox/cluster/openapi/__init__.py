"""OpenAPI v3: the types' fields, for `kubectl explain`, and what each path takes, for all writes.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3
OpenAPI v2 is not served: kubectl does without it.
"""
