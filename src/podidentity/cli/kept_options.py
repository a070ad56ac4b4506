"""What `enable` was told, and the next `enable` keeps.

NMI's image and flags stand in its DaemonSet, so what somebody changed there by hand counts. The
other options stand in an annotation of it, as a command line: the objects do not tell them. A right
that is missing may have been left out, or have been lost.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from click.core import ParameterSource

from podidentity.cli.commands.enable import EVERYTHING, FLAGS, IMAGE, RECORDED
from podidentity.cli.nmi import nmi
from podidentity.cli.objects import Object
from podidentity.cli.output import CommandError
from podidentity.cli.parameters import shown_toleration
from podidentity.manifests import name_of_flag, told_args
from podidentity.settings import OLD_FLAGS

RECORD = "aadpodidentity.k8s.io/enabled-with"
"""Annotation of NMI's DaemonSet: the options, but image and flags of NMI."""
_DEFAULT_IMAGE = re.compile(r"(localhost/)?podidentity:[0-9]+\.[0-9]+\.[0-9]+")
"""Of any version: `enable` was told none, and brings that of its own version."""
_FLAG = re.compile(r"--|-[a-z]")
"""How a word begins that is a flag: NMI has `-v`, too. A `-` alone is a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Options of `enable` that count for the next one, too."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """By the name of their parameter, without those that have their default."""
    flags: tuple[str, ...] = ()
    """NMI's; among those of a command line `--FLAG-` takes one back."""

    def without(self, options: Iterable[str]) -> Told:
        """Return it without these options, in the words of FORGETTABLE."""
        gone = set(options)
        names = {IMAGE: IMAGE, **RECORDED}
        if EVERYTHING in gone:
            return Told()
        left = {each: value for each, value in self.options.items() if names[each] not in gone}
        return Told(options=left, flags=() if FLAGS in gone else self.flags)

    def left_by(self, now: Told) -> Told:
        named = {_canonical(words[0]) for words in _grouped(now.flags)}
        kept = [each for each in _grouped(self.flags) if _canonical(each[0]) not in named]
        options = {name: value for name, value in self.options.items() if name not in now.options}
        return Told(options=options, flags=tuple(word for words in kept for word in words))

    def and_now(self, now: Told) -> Told:
        """Return these options with those given `now`; of NMI's flags the later one wins."""
        return Told(options={**self.options, **now.options}, flags=(*self.flags, *now.given_flags))

    @property
    def given_flags(self) -> tuple[str, ...]:
        groups = _grouped(self.flags)
        return tuple(word for words in groups if not _takes_back(words[0]) for word in words)

    def words(self, command: click.Command) -> list[str]:
        image = [f"--{IMAGE}={self.options[IMAGE]}"] if IMAGE in self.options else []
        return [*image, *self.record(command), *(f"--{FLAGS}={each}" for each in self.flags)]

    def record(self, command: click.Command) -> list[str]:
        return [
            word
            for each in command.params
            if each.name in RECORDED and each.name in self.options
            for word in _words(each, self.options[each.name])
        ]


def told_now(context: click.Context, flags: Sequence[str]) -> Told:
    """Return what this run of `enable` is told; raise CommandError for a flag that NMI has not."""
    for each in filter(_takes_back, flags):
        if _canonical(each) == each.removesuffix("-"):
            raise CommandError(
                f"NMI has no flag {each.removesuffix('-')}, which --nmi-arg={each} takes back",
                "docs/reference/nmi.md has all flags.",
            )
    given = {
        name: context.params[name]
        for name in (IMAGE, *RECORDED)
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    return Told(options=given, flags=tuple(flags))


def kept_of(daemon_set: Object | None, command: click.Command) -> Told:
    """Return what the `enable` before was told; raise CommandError if its record is none."""
    if daemon_set is None:
        return Told()
    (first, *_) = daemon_set["spec"]["template"]["spec"]["containers"]
    image = first.get("image", "")
    options = {} if not image or _DEFAULT_IMAGE.fullmatch(image) else {IMAGE: image}
    text = (daemon_set["metadata"].get("annotations") or {}).get(RECORD, "")
    try:
        reading = copy.copy(command)
        reading.params = [each for each in command.params if each.name in RECORDED]
        reading.add_help_option = False
        with reading.make_context("enable", shlex.split(text)) as context:
            options |= {
                name: value
                for name, value in context.params.items()
                if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
            }
    except (click.ClickException, ValueError) as error:
        why = error.format_message() if isinstance(error, click.ClickException) else str(error)
        raise CommandError(
            f"What an earlier enable was told cannot be read, {RECORD} of NMI's DaemonSet: {why}",
            "Use the command of the version that wrote it, or run enable --forget all with all "
            "options that the cluster needs.",
        ) from error
    without_effect = {f"--{each.name}" for each in OLD_FLAGS}
    words = [
        word
        for group in _grouped(told_args(daemon_set))
        if name_of_flag(group[0]) not in without_effect
        for word in group
    ]
    return Told(options=options, flags=tuple(words))


def _words(option: click.Parameter, value: Any) -> list[str]:  # noqa: ANN401 - as click has it
    if isinstance(value, bool):
        return [option.opts[0] if value else option.secondary_opts[0]]
    many: Sequence[Any] = value if option.multiple else [value]
    text: Callable[[Any], str] = shown_toleration if option.name == "tolerations" else str
    return [f"{option.opts[0]}={text(each)}" for each in many]


def _grouped(flags: Sequence[str]) -> list[list[str]]:
    """Return each flag with the words that follow it: its value, where that is one of its own."""
    groups: list[list[str]] = []
    for each in flags:
        if _FLAG.match(each) or not groups:
            groups.append([])
        groups[-1].append(each)
    return groups


def _takes_back(flag: str) -> bool:
    return flag.startswith("--") and flag.endswith("-") and "=" not in flag


def _canonical(flag: str) -> str:
    """Return what NMI calls a flag, whichever of its names this is; a stranger's as it is."""
    name = name_of_flag(flag)
    if _takes_back(flag):
        name = name.removesuffix("-")
    names = {each: param.name for param in nmi.params for each in param.opts}
    return names.get(name) or name
