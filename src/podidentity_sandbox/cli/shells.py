"""Commands that lead a person's programs to the sandbox: a shell of its own, or the one at hand."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.environment import VARIABLES, environment, not_here, sign_in


@click.command(epilog='Example: eval "$(podidentity sandbox env)"')
@options.name
@click.option("--shell", type=click.Choice(["sh", "json"]), default="sh", show_default=True)
@click.option(
    "--unset", is_flag=True, help="Print what takes these variables out of a shell; none need run."
)
def env(name: str, shell: str, *, unset: bool) -> None:
    """Print the environment in which a shell, az and kubectl find the sandbox.

    The first time that az is there it is signed in as the sandbox's operator; the sign-in lies in
    the sandbox's folder, and your own az and kubectl are left alone.
    """
    if unset:
        click.echo(json.dumps(VARIABLES) if shell == "json" else f"unset {' '.join(VARIABLES)}")
        return
    variables = prepared(options.plan_of(name))
    if shell == "json":
        click.echo(json.dumps(variables, indent=2))
    else:
        click.echo(exports(variables))


@click.command(epilog="Example: podidentity sandbox shell")
@options.name
@click.argument("command", nargs=-1)
def shell(name: str, command: tuple[str, ...]) -> None:
    """Open a shell in which az and kubectl find the sandbox; leave it with `exit`.

    With a COMMAND, run that instead. The sandbox stays up either way.
    """
    plan = options.plan_of(name)
    variables = prepared(plan)
    argv = list(command)
    if not argv:
        start = plan.path / "bashrc"
        start.touch(mode=0o600)
        start.write_text(start_file(plan.name, variables))
        argv = ["bash", "--rcfile", str(start)]
    surroundings = {**os.environ, **variables}
    program = shutil.which(argv[0], path=variables["PATH"])
    if program is None:
        raise SandboxError(not_here(argv[0]))
    os.execve(program, argv, surroundings)  # noqa: S606 - what the person asked for


def prepared(plan: Plan) -> dict[str, str]:
    """Return the variables, with az signed in; a failure of that is told and is no failure here."""
    variables = environment(plan, ":".join(os.get_exec_path()))
    try:
        sign_in(plan, {**os.environ, **variables})
    except SandboxError as error:
        click.echo(f"warning: {error}", err=True)
    return variables


def exports(variables: Mapping[str, str]) -> str:
    return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in variables.items())


def start_file(name: str, variables: Mapping[str, str]) -> str:
    """Return what bash reads first: the person's own file, then ours, whatever that one did."""
    return (
        "[ ! -f ~/.bashrc ] || . ~/.bashrc\n"
        f"{exports(variables)}\n"
        f'PS1="(sandbox {name}) ${{PS1:-\\$ }}"\n'
    )
