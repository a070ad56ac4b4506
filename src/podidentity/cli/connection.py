"""The connection of commands to a cluster: shared options, the event loop, and errors in words."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from podidentity import __version__
from podidentity.cli.output import CommandError

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube
    from podidentity.wire.kube import KubeError

READS = 3
"""Times that a command reads something where the server fails or cuts the connection: an agent
tries again by itself, a person would have to begin anew."""
GOES_ON = {"enable", "disable", "delete", "grant", "revoke"}
"""Commands that change several things, and may be run again wherever they were interrupted. `add`
says what undoes it, and `migrate` what it has done."""
_FAILED = 500
"""The API server's own failures, from this status on: a leader of etcd that is gone, above all."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """The cluster that a command works on."""

    kubeconfig: str | None
    context: str | None


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --kubeconfig and --context to `command`, which gets them as `target`."""

    @click.option("--kubeconfig", metavar="PATH", envvar="KUBECONFIG", help="Kubeconfig file.")
    @click.option("--context", metavar="NAME", help="Its context. [default: the current one]")
    @functools.wraps(command)
    def with_target(kubeconfig: str | None, context: str | None, **rest: Any) -> None:  # noqa: ANN401 - click's
        command(target=ClusterTarget(kubeconfig or None, context), **rest)

    return with_target


def on_cluster(
    target: ClusterTarget,
    work: Callable[[Kube], Awaitable[_T]],
    kind: type[Kube] | None = None,
) -> _T:
    """Run `work` with a connection to `target` and return its result; raise CommandError.

    `kind` is the client that it gets, if not the usual one.
    """
    import asyncio  # with the HTTP client a tenth of a second, which help and usage must not take

    from podidentity.adapters.kube import Kube
    from podidentity.wire.kube import KubeError

    async def connected() -> _T:
        kube = (kind or Kube).connect(
            target.kubeconfig,
            context=target.context,
            user_agent=f"podidentity/{__version__}",
            reads=READS,
        )
        try:
            return await work(kube)
        finally:
            await kube.close()

    try:
        return asyncio.run(connected())
    except KeyboardInterrupt:
        if (command := running_command()) in GOES_ON:
            click.echo(f"{command} did not finish. Run it again: it goes on.", err=True)
        raise
    except KubeError as error:
        raise worded(error) from error


def worded(error: KubeError) -> CommandError:
    """Return `error` with a next step for people."""
    if error.not_found and _no_such_type(error):
        return CommandError(
            "Pod identity is not enabled in this cluster", "Run podidentity enable."
        )
    if error.not_found and "namespaces" in error.said:
        return CommandError(error.message, "Create the namespace first.")
    from podidentity.adapters.kube import was_cut  # it has been asked: the client is loaded

    if was_cut(error):
        return CommandError(error.message, "The connection was cut: run the command again.")
    if error.unreachable:
        known = "--kubeconfig" in error.said
        return CommandError(error.message, "" if known else "Check --kubeconfig and --context.")
    if error.throttled or error.retry_after:
        return CommandError(error.message, "The API server is overloaded: try again later.")
    return _refused(error)


def _refused(error: KubeError) -> CommandError:
    if error.unauthorized:
        return CommandError(
            error.message, "Sign in to the cluster again, or choose another --context."
        )
    if error.forbidden and "denied request" in error.said:
        return CommandError(
            error.message,
            "A policy of the cluster refuses it, and no right is missing: of AKS's see "
            "docs/reference/cli.md, AKS Automatic.",
        )
    if error.forbidden:
        return CommandError(
            error.message, f"Ask the cluster's administrator for it{_all_needed()}."
        )
    if error.conflict or error.status >= _FAILED:
        return CommandError(error.message, "Run the command again.")
    return CommandError(error.message)


def right_to(verb: str, resource: str, namespace: str = "") -> str:
    """Return what a person lacks who may not do this."""
    where = f" in {namespace}" if namespace else ""
    return f"you need the right to {verb} {resource}{where}"


def _all_needed() -> str:
    """Return where the command that runs has all its rights listed; "" outside of one."""
    command = running_command()
    return f": podidentity rights {command} lists all that the command needs" if command else ""


def running_command() -> str:
    """Return the name of the command that runs, such as `add`; "" outside of one."""
    context = click.get_current_context(silent=True)
    while context and context.parent and context.parent.parent:
        context = context.parent
    return str(context.info_name) if context and context.parent else ""


def _no_such_type(error: KubeError) -> bool:
    """Whether the API server does not know the resource type at all."""
    words = ("page not found", "could not find the requested resource")
    return any(word in error.said for word in words)
