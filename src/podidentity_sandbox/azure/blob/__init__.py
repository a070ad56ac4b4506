"""The blob service of storage accounts, as far as pods use it: containers and small block blobs.

Reading order: `call`, `authorization`, `operations`; `service` has the table of them and is the
front.
"""
