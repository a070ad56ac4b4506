"""Whether what was granted is still there: a token that outlived its reason is kept for nobody.

No permission hangs on it: the rules decide again before each look at what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from podidentity.core.entitlements import Directory
from podidentity.core.resources import AzureIdentity, WorkloadIdentity
from podidentity.core.tokens import Grant


def standing(grant: Grant, directory: Directory) -> Iterator[Grant]:
    """Yield `grant` as the cluster's objects would give it now; nothing where none is left.

    An identity is named by its AzureIdentity, by an annotated service account or by an exception,
    and these may have one name.
    """
    identity = grant.identity
    found = directory.identity(identity.ref)
    if isinstance(found, AzureIdentity):
        yield replace(grant, identity=found)
    account = directory.workload_identity(identity.ref)
    if isinstance(account, WorkloadIdentity) and account.client_id == identity.client_id:
        yield grant
    if any(each.ref == identity.ref for each in directory.exceptions(identity.ref.namespace)):
        yield grant
