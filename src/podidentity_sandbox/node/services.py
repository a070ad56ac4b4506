"""The services that the pods of a node share: made once by `main`, and passed to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.cgroups import PodCgroups
from podidentity_sandbox.node.network import PodNetwork
from podidentity_sandbox.node.reports import Events
from podidentity_sandbox.node.spec import ContainerSpec, PodSpec
from podidentity_sandbox.plan import NodePlan, Plan

if TYPE_CHECKING:
    from podidentity_sandbox.node.containers import Container
    from podidentity_sandbox.node.cri.sandboxes import PodSandboxes


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The node's neighbours and tools."""

    plan: Plan
    node: NodePlan
    search_path: str
    """PATH of every container; the interpreter's own folder comes first."""
    kept: tuple[str, ...]
    """Folders of the machine that hold the interpreter and the programs of this project."""
    api: ApiClient
    container: MakeContainer
    network: PodNetwork | PodSandboxes
    cgroups: PodCgroups
    events: Events
    probing: aiohttp.ClientSession


MakeContainer = Callable[[ContainerSpec, PodSpec, Services, Callable[[], None]], "Container"]
"""Makes a container: a program of this machine, or one of a container runtime."""
