"""From a container's spec to the order that starts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from podidentity_sandbox.node.environment import expand, variables
from podidentity_sandbox.node.fields import pod_fields
from podidentity_sandbox.node.programs import Order, Program, Room
from podidentity_sandbox.node.quantities import memory_limit
from podidentity_sandbox.node.references import Found, fetch
from podidentity_sandbox.node.refusals import ContainerRefused
from podidentity_sandbox.node.security import Rights, rights
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import ContainerSpec, PodSpec
from podidentity_sandbox.node.volumes import AUTHORITIES, PodVolumes
from podidentity_sandbox.plan import APISERVER_ADDRESS

_IDLE = ("sleep", "infinity")
_AUTHORITIES_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a pod gives its containers."""

    pod: PodSpec
    address: str
    network: str
    """File of the pod's network namespace; "" for the node's."""
    volumes: PodVolumes


async def order_for(container: ContainerSpec, around: Surroundings, services: Services) -> Order:
    """Return the order that starts a container; raise ContainerRefused."""
    found = await fetch(container, around.pod.namespace, services.api)
    may = rights(around.pod.security, container.security)
    plan = services.plan
    environment = _environment(container, around, services, found)
    if container.tty:
        environment.setdefault("TERM", "xterm")
    program = Program(
        argv=tuple(expand(word, environment) for word in container.command) or _IDLE,
        environment=tuple(environment.items()),
        directory=container.directory,
        uid=0 if plan.rootless else may.uid,
        gid=0 if plan.rootless else may.gid,
        groups=() if plan.rootless else may.groups,
        capabilities=may.capabilities,
        no_new_privileges=may.no_new_privileges,
        cgroups=_cgroups(container, around.pod, services),
        terminal=container.tty,
        reaped=not container.command,
    )
    return Order(program=program, room=_room(container, around, services, may, environment))


def order_beside(started: Program, pid: int, argv: tuple[str, ...], *, terminal: bool) -> Order:
    """Return the order that runs `argv` beside a container's program, with the same rights."""
    environment = started.environment + ((("TERM", "xterm"),) if terminal else ())
    program = replace(started, argv=argv, environment=environment, terminal=terminal, reaped=False)
    return Order(program=program, beside=pid)


def runs_as_other_than_root(container: ContainerSpec, pod: PodSpec) -> bool:
    """Say whether the spec asks for a user that a sandbox without root does not have."""
    return rights(pod.security, container.security).uid != 0


def _cgroups(container: ContainerSpec, pod: PodSpec, services: Services) -> tuple[str, ...]:
    """Make the container's cgroups, in those of the pod, with their limits of memory."""
    try:
        limits = {each.name: memory_limit(each.resources) for each in pod.containers}
        own = memory_limit(container.resources)
    except ValueError as error:
        raise ContainerRefused("CreateContainerConfigError", str(error)) from error
    services.cgroups.pod(pod.uid, limits)
    return services.cgroups.container(pod.uid, container.name, own)


def _room(
    container: ContainerSpec,
    around: Surroundings,
    services: Services,
    may: Rights,
    variables: Mapping[str, str],
) -> Room:
    return Room(
        hostname=around.volumes.hostname,
        network=around.network,
        binds=around.volumes.binds(container, variables),
        hidden=(services.plan.folder,),
        kept=services.kept,
        read_only_root=may.read_only_root,
        system_writable=may.privileged,
        rootless=services.plan.rootless,
    )


def _environment(
    container: ContainerSpec, around: Surroundings, services: Services, found: Found
) -> dict[str, str]:
    given = {
        "PATH": services.search_path,
        "HOME": "/root",
        "HOSTNAME": around.volumes.hostname,
        "KUBERNETES_SERVICE_HOST": APISERVER_ADDRESS,
        "KUBERNETES_SERVICE_PORT": "443",
        **dict.fromkeys(_AUTHORITIES_VARIABLES, AUTHORITIES),
    }
    fields = pod_fields(
        around.pod.raw, pod_address=around.address, host_address=services.node.address
    )
    return variables(container, fields, given, namespace=around.pod.namespace, found=found)
