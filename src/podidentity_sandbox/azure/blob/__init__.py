"""The blob service of storage accounts, as far as pods use it: containers and small block blobs.

Reading order: `errors`, `store`, `call`; who may (`sharedkey`, `bearer`, `access`); what is done
(`conditions`, `ranges`, `containers`, `blobs`, `listing`); `operations` is the table of them,
`service` the front.
"""
