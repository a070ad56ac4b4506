"""The operator's settings as the values of the pure parts."""

from __future__ import annotations

import logging

from podidentity.core.decision import Authorization, Rules
from podidentity.mic.controller import Assign, Settings
from podidentity.mic.signin import NoCredential, read_cloud_config
from podidentity.settings import MicSettings

DENIED = 15.0
"""Seconds that a refusal counts: an operator may be about to grant the permission."""

_log = logging.getLogger("podidentity.mic")


def controller_settings(settings: MicSettings) -> Settings:
    if settings.cross_namespace:
        _log.warning("--compat-cross-namespace: identities of other namespaces count, as before")
    if settings.authorization is not Authorization.RBAC:
        _log.warning(
            "--authorization=%s: whoever may create an AzureIdentity has it attached",
            settings.authorization,
        )
    if settings.node_network:
        _log.warning(
            "--attach-for-node-network: identities are attached for pods of the node's network, "
            "and each of them reaches all that are on its machine"
        )
    return Settings(
        assign=Assign(settings.assign),
        rules=Rules(
            cross_namespace=settings.cross_namespace,
            exception_namespaces=settings.exception_namespaces,
        ),
        asks_permission=settings.authorization is Authorization.RBAC,
        node_network=settings.node_network,
        grace=settings.detach_grace,
        reconcile=settings.reconcile_interval,
        protected=_protected(settings),
        record_writes=max(1, settings.writes_at_once),
        denied=DENIED,
    )


def _protected(settings: MicSettings) -> frozenset[str]:
    """Return the client ids that are never detached: the operator's, and the cluster's own."""
    mine = {each.text for each in settings.immutable}
    mine.add(settings.managed_client_id.strip().lower())
    if settings.cloud_config:
        try:
            mine.add(read_cloud_config(settings.cloud_config).managed_client_id.strip().lower())
        except NoCredential as error:
            _log.warning("%s", error)
    return frozenset(mine - {""})
