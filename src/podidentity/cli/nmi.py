"""`podidentity nmi`: the node agent. Its options are generated from `settings.NmiSettings`.

All flags of the archived project are accepted, so that its manifests need no change; a flag without
effect says so in its help. Bare booleans (`--forceNamespaced`) and `--flag=false` both work, as
with pflag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from podidentity.cli.output import examples
from podidentity.cli.parameters import Parsed, cloud_of
from podidentity.core.authorities import Cloud
from podidentity.settings import (
    OLD_FLAGS,
    Compat,
    Flag,
    NmiSettings,
    OldFlag,
    Setting,
    settings_flags,
)

if TYPE_CHECKING:
    from podidentity.cli.programs import AgentPlan

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def options_of(
    settings: Iterable[Setting], old: Sequence[OldFlag]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    flags = list(settings)

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed(old):
            made = (
                _switch(f"--{each.name}", help=each.text, expose_value=False)
                if each.switch
                else click.option(f"--{each.name}", help=each.text, expose_value=False)
            )
            command = made(command)
        for name, found, default in reversed(flags):
            command = _option(name, found, default)(command)
        return command

    return added


_TYPES: dict[str, click.ParamType[Any]] = {
    "number": click.IntRange(min=0),
    "seconds": click.FloatRange(min=0),
}


def _option(name: str, found: Flag, default: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - a setting's
    text, readable = _plain(found.text), shown(found, default)
    more: dict[str, Any] = {"envvar": found.envvar or None}
    if found.kind == "switch":
        return _switch(*found.names, name, default=default, help=text, **more)
    more["type"] = _TYPES.get(found.kind) or _text_type(found)
    if found.metavar:
        more["metavar"] = found.metavar
    if found.repeated:
        text = f"{text} May be repeated. Default: {readable}."
        return click.option(*found.names, name, multiple=True, help=text, **more)
    if isinstance(default, Cloud):
        # Its name: a file may belong to it (`settings_from`).
        default = readable
    return click.option(
        *found.names, name, default=default, show_default=readable or False, help=text, **more
    )


def _text_type(found: Flag) -> click.ParamType[Any]:
    if found.choices or found.parse:
        return Parsed(found.parse or str, found.choices)
    return click.STRING


def _switch(*names: str, **more: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - click's
    """Return an option that needs no value, as a boolean of pflag."""
    return click.option(*names, is_flag=False, flag_value="true", type=bool, **more)


def shown(found: Flag, default: Any) -> str:  # noqa: ANN401 - a setting's
    if found.shown or default in (None, frozenset()):
        return found.shown
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _plain(text: str) -> str:
    """Return Markdown as plain text for a terminal."""
    return _LINK.sub(r"\1", text).replace("`", "")


@click.command(
    epilog=examples("podidentity nmi --node=$(NODE_NAME) --operation-mode=managed"),
    context_settings={"max_content_width": 100},
)
@options_of(settings_flags(), OLD_FLAGS)
@click.version_option(None, "--version", package_name="podidentity")
def nmi(**given: Any) -> AgentPlan:  # noqa: ANN401 - parsed by click
    """Run the node agent: the metadata service of this node's pods.

    It redirects pods' requests for 169.254.169.254 to itself, proves which pod sends each, and
    answers with tokens of only those identities that are granted to the pod.
    """
    return plan_of(settings_from(given), "both")


def settings_from(given: Mapping[str, Any]) -> NmiSettings:
    # A repeated flag that is not given has the default of its setting.
    rest = {name: value for name, value in given.items() if value != ()}
    rest["node"] = rest.get("node") or ""
    rest["cloud"] = cloud_of(rest["cloud"], rest["environment_file"])
    prefix = "compat_"
    old = {name: rest.pop(name) for name in list(rest) if name.startswith(prefix)}
    compat = Compat(**{name.removeprefix(prefix): value for name, value in old.items()})
    try:
        return NmiSettings(**rest, compat=compat)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def plan_of(settings: NmiSettings, program: Literal["net", "serve", "both"]) -> AgentPlan:
    """Return what `cli.main` runs; what makes it is imported here, for `--help` needs it not."""
    from podidentity.cli import plans

    return plans.plan_of_both(settings) if program == "both" else plans.plan_of(settings, program)


def _program(name: Literal["net", "serve"], text: str) -> click.Command:
    """Return a command with the flags of `nmi`; flags of the other program have no effect."""
    return click.Command(
        name,
        params=nmi.params,
        callback=lambda **given: plan_of(settings_from(given), name),
        help=text,
        epilog=examples(f"podidentity {name} --node=$(NODE_NAME) --operation-mode=managed"),
        context_settings=nmi.context_settings,
    )


net = _program(
    "net",
    "Run the privileged half of the node agent: set and guard the rules, prove callers.\n\n"
    "It takes the flags of `podidentity nmi`. It has no API token, listens on no port, and answers "
    "serve over a socket in --runtime-dir.",
)
serve = _program(
    "serve",
    "Run the other half of the node agent: answer pods, decide, hold tokens.\n\n"
    "It takes the flags of `podidentity nmi`, and needs no capability. A supervisor keeps the "
    "listening sockets and replaces a worker that ends, hangs or grows too large.",
)
