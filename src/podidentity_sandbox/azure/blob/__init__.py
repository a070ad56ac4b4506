"""The blob service of storage accounts, as far as pods use it: containers and small block blobs.

Reading order: `store`, `call`, `authorization`; the operations in `conditions`, `containers` and
`blobs`; `service` has the table of them and is the front.
"""
