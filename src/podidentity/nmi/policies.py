"""What an operator's settings mean for the parts of the agent: each policy from one function."""

from __future__ import annotations

import logging
from dataclasses import fields

from podidentity.core.decision import Ambiguity, Authorization
from podidentity.core.delegation import Delegation
from podidentity.nmi.request.decision import DecisionPolicy
from podidentity.nmi.request.hold import SPREAD, HoldTimes
from podidentity.nmi.request.pipeline import RoutePolicy
from podidentity.nmi.rules import rules_of
from podidentity.nmi.sync.prefetch import PrefetchPolicy
from podidentity.nmi.sync.watches import Scope
from podidentity.settings import Compat, NmiSettings
from podidentity.wire.imds import AllowList

_log = logging.getLogger("podidentity.nmi")


def policy_of(settings: NmiSettings) -> DecisionPolicy:
    return DecisionPolicy(
        ambiguity=Ambiguity(settings.ambiguous),
        authorization=Authorization(settings.authorization),
        rules=rules_of(settings),
        hold=HoldTimes(
            change=settings.hold,
            unseen=settings.unseen_wait,
            begun=settings.begun_wait,
            spread=SPREAD if settings.hold else 0.0,
        ),
        tenant_array=settings.compat.tenant_array,
    )


def prefetch_of(settings: NmiSettings) -> PrefetchPolicy:
    """Return what is fetched before pods ask."""
    return PrefetchPolicy(
        choice=settings.prefetch,
        cloud=settings.cloud,
        authorization=Authorization(settings.authorization),
        rules=rules_of(settings),
    )


def scope_of(settings: NmiSettings) -> Scope:
    return Scope(
        node=settings.node,
        records=settings.standard,
        labelled=settings.only_own_records,
        exception_namespaces=settings.exception_namespaces,
    )


def delegation_of(settings: NmiSettings) -> Delegation:
    choice = settings.host_token
    callers = () if choice == "off" else settings.host_token_callers
    return Delegation(callers=callers, root=choice == "root")


def route_policy_of(settings: NmiSettings) -> RoutePolicy:
    """Return which paths are open, and how errors are told."""
    allowed = [
        path
        for path in settings.metadata_allow
        if not (settings.block_instance_metadata and path.startswith("/metadata/instance"))
    ]
    return RoutePolicy(
        allow=AllowList(allowed),
        header_required=settings.metadata_header_required,
        retry_after_header=settings.retry_after_header,
        text_errors=settings.compat.text_errors,
    )


def warn_of(compat: Compat) -> None:
    """Say at the start which of the old rules are on: each opens something."""
    for switch in fields(compat):
        if getattr(compat, switch.name):
            _log.warning(
                "--compat-%s is on: see docs/reference/compatibility.md for what it opens",
                switch.name.replace("_", "-"),
            )
