"""The connection of commands to a cluster: shared options, the event loop, and errors in words."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from podidentity import __version__
from podidentity.cli.changes import changing, recorded, say_unfinished
from podidentity.cli.output import CommandError

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube
    from podidentity.wire.kube import KubeError
    from podidentity.wire.proxies import Proxies

READS = 3
"""Times that a command reads something where the server fails or cuts the connection: an agent
tries again by itself, a person would have to begin anew."""
CHANGING = {
    *("enable", "disable", "add", "delete", "grant", "revoke", "mic pause", "mic resume"),
    *("exception add", "exception update", "exception delete"),
    *("migrate apply", "migrate rollback", "migrate adopt"),
}
"""Commands that change something. Each may be run again wherever it was interrupted."""
_FAILED = 500
"""The API server's own failures, from this status on: a leader of etcd that is gone, above all."""
_SLOW = 2.0
"""A command tells of an answer that takes so many seconds."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """The cluster that a command works on."""

    kubeconfig: str | None
    context: str | None


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --kubeconfig and --context to `command`, which gets them as `target`.

    Both may stand before the command, too.
    """

    def before(name: str) -> str | None:
        return click.get_current_context().find_root().params.get(name)

    @click.option(
        "--kubeconfig",
        metavar="PATH",
        default=lambda: before("kubeconfig"),
        help="Kubeconfig file.",
    )
    @click.option(
        "--context",
        metavar="NAME",
        default=lambda: before("context"),
        help="Its context. [default: the current one]",
    )
    @functools.wraps(command)
    def with_target(kubeconfig: str | None, context: str | None, **rest: Any) -> None:  # noqa: ANN401 - click's
        command(target=ClusterTarget(kubeconfig or None, context), **rest)

    return with_target


def environment_proxies() -> Proxies:
    from podidentity.wire.proxies import parse_proxies

    return parse_proxies(os.environ)


class Waiting:
    """The requests without an answer yet. While answers take long, a line says so now and then."""

    def __init__(self, now: Callable[[], float], say: Callable[[str], None]) -> None:
        self._now = now
        self._say = say
        self._open: dict[object, tuple[float, str]] = {}
        self._slowest = 0.0
        """Seconds that an answer took since the last look."""

    @contextmanager
    def of(self, request: str) -> Iterator[None]:
        """Count `request` as open within."""
        key, begun = object(), self._now()
        self._open[key] = begun, request
        try:
            yield
        finally:
            del self._open[key]
            self._slowest = max(self._slowest, self._now() - begun)

    async def tell(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Print a line each five seconds while the oldest request waits, or answers take long."""
        while True:
            await sleep(5)
            slowest, self._slowest = self._slowest, 0.0
            since, request = min(self._open.values(), default=(self._now(), ""))
            if (seconds := self._now() - since) >= _SLOW:
                self._say(f"still waiting for the API server ({seconds:.0f} s): {request}")
            elif request and slowest >= _SLOW:
                slow = f"the API server is slow ({slowest:.0f} s for an answer)"
                self._say(f"{slow}, asked now: {request}")


def on_cluster(
    target: ClusterTarget,
    work: Callable[[Kube], Awaitable[_T]],
    kind: type[Kube] | None = None,
    *,
    undo: Callable[[Sequence[str]], str] = lambda _: "",
) -> _T:
    """Run `work` with a connection to `target` and return its result; raise CommandError.

    `kind` is the client that it gets, if not the usual one. If the command is interrupted, it says
    what it has begun to change; `undo` returns then, given the changes without an answer, the
    command lines that take all of it back.
    """
    import asyncio  # with the HTTP client a tenth of a second, which help and usage must not take

    from podidentity.adapters.kube import Kube
    from podidentity.cli.name_lookups import UnwaitedThreads
    from podidentity.wire.kube import KubeError, request_in_words

    waiting = Waiting(time.monotonic, functools.partial(click.echo, err=True))

    async def connected() -> _T:
        asyncio.get_running_loop().set_default_executor(UnwaitedThreads())
        telling = asyncio.create_task(waiting.tell(asyncio.sleep)) if sys.stderr.isatty() else None
        kube = (kind or Kube).connect(
            target.kubeconfig,
            context=target.context,
            user_agent=f"podidentity/{__version__}",
            proxies=environment_proxies(),
            reads=READS,
            changing=lambda method, path: changing(request_in_words(method, path)),
            asking=lambda method, path: waiting.of(request_in_words(method, path)),
        )
        try:
            return await work(kube)
        finally:
            if telling is not None:
                telling.cancel()
            await kube.close()

    with recorded() as changes:
        try:
            return asyncio.run(connected())
        except (KeyboardInterrupt, click.Abort):
            if (command := " ".join(_running())) in CHANGING:
                say_unfinished(command, changes, undo)
            raise
        except KubeError as error:
            raise _of_an_expired_certificate(error, target) or worded(error) from error


def _of_an_expired_certificate(error: KubeError, target: ClusterTarget) -> CommandError | None:
    """Return `error` with its cause where that is a client certificate that has expired.

    The server does not say so: its answer is 401, or TLS ends.
    """
    if not (error.unauthorized or error.unreachable):
        return None
    from podidentity.kubeconfig import expired_certificate

    expired = expired_certificate(target.kubeconfig, target.context, datetime.now(UTC))
    if not expired:
        return None
    return CommandError(
        error.message,
        f"{expired}: get a new one (az aks get-credentials), or choose another --context.",
    )


def worded(error: KubeError) -> CommandError:
    no_such_type = (
        error.said.strip() == "404 page not found"
        or "could not find the requested resource" in error.said
    )
    if error.not_found and no_such_type:
        if running_command() == "migrate":
            return CommandError(
                "This cluster has no AAD Pod Identity", "There is nothing to migrate."
            )
        return CommandError(
            "Pod identity is not enabled in this cluster", "Run podidentity enable."
        )
    if error.not_found and "namespaces" in error.said:
        return CommandError(error.message, "Create the namespace first.")
    import httpx2  # it has asked: the client is loaded

    from podidentity.adapters.kube import was_cut

    if was_cut(error):
        return CommandError(error.message, "The connection was cut: run the command again.")
    if isinstance(error.__cause__, httpx2.ReadTimeout):
        return CommandError(
            error.message,
            "The API server takes connections and does not answer: it hangs or is overloaded. Try"
            " again later; kubectl get --raw /livez says whether it answers anybody.",
        )
    if error.unreachable:
        step = "" if "--kubeconfig" in error.said else "Check --kubeconfig and --context."
        if ", by the proxy " in error.message:
            step = (
                "See the proxy's own log. A server that needs no proxy belongs into NO_PROXY, over "
                "which a context's proxy-url wins."
            )
        return CommandError(error.message, step)
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
        return CommandError(error.message, ask_for_it())
    if error.conflict or error.status >= _FAILED:
        return CommandError(error.message, "Run the command again.")
    if not error.reason:
        return CommandError(
            error.message, "So speaks no Kubernetes API server: check --kubeconfig and --context."
        )
    return CommandError(error.message)


def right_to(verb: str, resource: str, namespace: str = "") -> str:
    """Return what a person lacks who may not do this."""
    where = f" in {namespace}" if namespace else ""
    return f"you need the right to {verb} {resource}{where}"


def ask_for_it() -> str:
    command = running_command()
    listed = f": podidentity rights {command} lists all that the command needs" if command else ""
    return f"Ask the cluster's administrator for it{listed}."


def running_command() -> str:
    """Return the name of the command that runs, such as `add`; "" outside of one."""
    return next(iter(_running()), "")


def _running() -> list[str]:
    names: list[str] = []
    context = click.get_current_context(silent=True)
    while context and context.parent:
        names.insert(0, str(context.info_name))
        context = context.parent
    return names
