"""`az aks update` with the switches of the add-on: core's own command with three more arguments."""

from __future__ import annotations

import inspect
from typing import Any

from azure.cli.command_modules.acs.custom import aks_update as of_core
from azure.cli.command_modules.acs.managed_cluster_decorator import (
    AKSManagedClusterUpdateDecorator,
)
from azure.cli.core.azclierror import MutuallyExclusiveArgumentError, RequiredArgumentMissingError
from azure.cli.core.profiles import ResourceType
from knack.util import CLIError

from azext_podidentity import profile

SWITCHES = ("enable_pod_identity", "disable_pod_identity", "enable_pod_identity_with_kubenet")


class PodIdentityUpdate(AKSManagedClusterUpdateDecorator):  # type: ignore[misc]  # az has no types
    """Core's update of a cluster, and then the add-on."""

    def update_mc_profile_default(self) -> Any:
        """Return the cluster as it is to be."""
        given = self.context.raw_param
        wanted = {name: bool(given.get(name)) for name in SWITCHES}
        check(**wanted)
        cluster = super().update_mc_profile_default()
        if wanted["disable_pod_identity"]:
            profile.disable(cluster, new_profile=self.models.ManagedClusterPodIdentityProfile)
        elif wanted["enable_pod_identity"]:
            self._enable(cluster, kubenet=wanted["enable_pod_identity_with_kubenet"])
        return cluster

    def _enable(self, cluster: Any, *, kubenet: bool) -> None:
        kind = ((cluster.identity and cluster.identity.type) or "").lower()
        if kind not in ("systemassigned", "userassigned"):
            raise RequiredArgumentMissingError(
                "--enable-pod-identity can only be specified for cluster enabled managed identity"
            )
        make = self.models.ManagedClusterPodIdentityProfile
        try:
            profile.enable(cluster, kubenet=kubenet, new_profile=make)
        except profile.NotAllowed as refusal:
            raise CLIError(str(refusal)) from refusal


def check(
    *, enable_pod_identity: bool, disable_pod_identity: bool, enable_pod_identity_with_kubenet: bool
) -> None:
    """Refuse switches that contradict each other, or say nothing."""
    if enable_pod_identity and disable_pod_identity:
        raise MutuallyExclusiveArgumentError(
            "Cannot specify --enable-pod-identity and --disable-pod-identity at the same time."
        )
    if enable_pod_identity_with_kubenet and not enable_pod_identity:
        raise RequiredArgumentMissingError(
            "--enable-pod-identity-with-kubenet needs --enable-pod-identity."
        )


def aks_update(**given: Any) -> Any:
    """Update a managed Kubernetes cluster."""
    from azure.cli.command_modules.acs._consts import DecoratorEarlyExitException

    bound = inspect.signature(aks_update).bind(**given)
    bound.apply_defaults()
    values = dict(bound.arguments)
    update = PodIdentityUpdate(
        cmd=values["cmd"],
        client=values["client"],
        raw_parameters=values,
        resource_type=ResourceType.MGMT_CONTAINERSERVICE,
    )
    try:
        cluster = update.update_mc_profile_default()
    except DecoratorEarlyExitException:
        return None
    return update.update_mc(cluster)


def _with_switches(signature: inspect.Signature) -> inspect.Signature:
    """Return core's arguments and ours: az reads a command's arguments off its signature."""
    kind = inspect.Parameter.KEYWORD_ONLY
    ours = [inspect.Parameter(name, kind, default=False) for name in SWITCHES]
    return signature.replace(parameters=[*signature.parameters.values(), *ours])


aks_update.__signature__ = _with_switches(inspect.signature(of_core))  # type: ignore[attr-defined]
