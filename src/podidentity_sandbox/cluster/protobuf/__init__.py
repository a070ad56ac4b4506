"""Bodies in protobuf: client-go sends built-in kinds in it, and kubectl's typed commands do too.

They are read into the JSON that the rest of the server works on; answers are JSON, which those
clients accept too. https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""
