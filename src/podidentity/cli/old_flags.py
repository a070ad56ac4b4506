"""Flags of the archived project's agent: how they are written, and those without effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_SOON = "No effect in this release."
_NONE = "Accepted for old manifests; no effect."
# klog's, with whether they are booleans.
KLOG = {
    "logtostderr": True,
    "alsologtostderr": True,
    "skip_headers": True,
    "skip_log_headers": True,
    "add_dir_header": True,
    "one_output": True,
    "log_dir": False,
    "log_file": False,
    "log_file_max_size": False,
    "log_backtrace_at": False,
    "stderrthreshold": False,
    "vmodule": False,
}
BOOLEANS = {
    "enableProfile": _SOON,
    "allow-network-plugin-kubenet": f"{_NONE} Kubenet is supported: callers are proved.",
    "enable-conntrack-deletion": f"{_NONE} Older connections are reset by the rules.",
}
VALUES = {
    "MICNamespace": _SOON,
    "ipt-update-interval-sec": f"{_NONE} Changed rules are seen and repaired at once.",
    "kubelet-config": f"{_NONE} Kubenet is supported: callers are proved.",
    "host-ip": _NONE,
    "proc-sys-net": f"{_NONE} No sysctl is set any more.",
}


class Verbosity(click.ParamType[int]):
    """klog's `-v=4`, `-v 4`, `--v=4`."""

    name = "integer"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number."""
        try:
            return int(str(value).lstrip("="))
        except ValueError:
            self.fail(f"{value!r} is no number", param, ctx)


def boolean(
    *names: str,
    default: bool = False,
    text: str,
    envvar: str | None = None,
    expose_value: bool = True,
) -> _Decorator:
    """Return an option that may stand bare, as a pflag boolean."""
    return click.option(
        *names,
        is_flag=False,
        flag_value="true",
        type=bool,
        default=default,
        help=text,
        envvar=envvar,
        expose_value=expose_value,
    )


def old_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Accept what has no effect."""
    booleans = BOOLEANS | {name: _NONE for name, bare in KLOG.items() if bare}
    values = VALUES | {name: _NONE for name, bare in KLOG.items() if not bare}
    for name, text in booleans.items():
        command = boolean(f"--{name}", text=text, expose_value=False)(command)
    for name, text in values.items():
        command = click.option(f"--{name}", help=text, expose_value=False)(command)
    return command
