"""Bodies in protobuf: kubectl's typed commands, such as `create token`, send nothing else.

They are read into the JSON that the rest of the server works on; answers are JSON, which those
clients accept too. https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""
