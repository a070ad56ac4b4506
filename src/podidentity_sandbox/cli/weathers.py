"""`podidentity sandbox weather`: how late Azure and the cluster are, and how often they fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import click

from podidentity_sandbox import weather as forecast
from podidentity_sandbox.cli import options
from podidentity_sandbox.weather import CHANCES, SERVICES, TIMES, Weather, WeatherError
from podidentity_sandbox.world import SandboxError


def given(word: str, seed: str | None) -> Weather:
    """Return the weather that a person names, with its seed; raise SandboxError."""
    try:
        number = None if seed is None else forecast.seed_of(seed)
        return forecast.named(word, seed=number)
    except WeatherError as error:
        raise SandboxError(str(error)) from error


@click.command(
    epilog="Examples: podidentity sandbox weather; podidentity sandbox weather set storm;"
    " podidentity sandbox weather set roles=120 'imds=[{effect: hang, first: 3}]'"
)
@options.name
@click.argument("words", nargs=-1, metavar="[show | set (calm|real|storm|FILE|WORD=VALUE)...]")
@click.option(
    "--weather-seed", "seed", metavar="SEED", help="As a number, or as `status` shows it."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def weather(name: str, words: Sequence[str], seed: str | None, output: str) -> None:
    """Show the weather of a running sandbox, or put another in force from now on.

    How long changes take to count, and which requests fail. The words and their values are those of
    a weather file; the JSON that is shown is one.
    """
    order, *rest = words or ("show",)
    if order not in {"show", "set"} or (order == "set") != bool(rest):
        raise click.UsageError("say `weather show`, or `weather set` and what")
    folder = options.plan_of(name).path
    try:
        wanted = forecast.read(folder)
        if order == "set":
            wanted = _set(wanted, rest, seed)
            forecast.write(folder, wanted)
    except WeatherError as error:
        raise SandboxError(str(error)) from error
    if order == "set":
        click.echo(str(wanted))
    elif output == "json":
        click.echo(json.dumps(forecast.as_json(wanted), indent=2))
    else:
        click.echo("\n".join(_told(wanted)))


def _set(current: Weather, words: Sequence[str], seed: str | None) -> Weather:
    """Return what the words ask for: a weather, or the current one, with changes."""
    settings = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise WeatherError(f"{' and '.join(names)} are two weathers")
    wanted = forecast.named(names[0]) if names else current
    if seed is not None:
        wanted = replace(wanted, seed=forecast.seed_of(seed))
    return forecast.changed(wanted, settings) if settings else wanted


def _told(current: Weather) -> list[str]:
    rows = [(word, str(current.times.get(word, "0 s")), meaning) for word, meaning in TIMES.items()]
    rows += [
        (word, f"{current.chances.get(word, 0):.0%}", meaning) for word, meaning in CHANCES.items()
    ]
    lines = [str(current), "", *(f"{word:<20} {value:<16} {what}" for word, value, what in rows)]
    for service in SERVICES:
        faults = current.faults.get(service, ())
        lines.append(f"{service:<20} {'; '.join(map(str, faults)) or 'no fault'}")
    return lines
