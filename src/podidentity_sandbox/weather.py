"""The weather of a sandbox: how long changes take to count, and which requests fail.

What befalls a request is a pure function of the seed, the kind of request and its number since the
weather was set; so a run can be replayed. The weather in force is one file in the sandbox's folder,
which every process reads before it decides; no other setting makes the sandbox late or fail.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import yaml

RULES = 1
"""Changes whenever the same seed would give other weather."""
FILE = "weather.json"
"""Name of the file in the sandbox's folder."""
JOURNAL = "weather.log"
"""Name of the file beside it: what the weather did, each in a line (`Struck`)."""

# ---- The words of a weather: times, chances, and the faults of each service

TIMES = MappingProxyType(
    {
        "answers": "until ARM, Graph, Entra, IMDS, a vault or a real API server answers",
        "roles": "until a role assignment of Azure counts",
        "removed-roles": "for which a removed role assignment still counts",
        "credentials": "until Entra knows a federated credential",
        "removed-credentials": "for which Entra takes a removed federated credential",
        "identities": "for which a node's IMDS keeps to the identities that it saw last",
        "scale-sets": "until a change of a scale set is done",
        "operations": "until ARM has registered a preview feature",
        "watches": "after which a real API server ends any watch; 0: as its client asks",
    }
)
"""Each time's word, and its meaning: seconds …"""
CHANCES = MappingProxyType(
    {
        "failing": "that a change of a scale set fails after it was accepted",
        "preempted": "that it is given up for a more recent one (OperationPreempted)",
    }
)


class Effect(StrEnum):
    """What a fault does to a request."""

    SLOW = "slow"
    """Answers after the fault's seconds, with a place in the quota held meanwhile."""
    HANG = "hang"
    """Never answers."""
    RESET = "reset"
    """Cuts the connection (RST)."""
    RUBBISH = "rubbish"
    """200 with a body that is not JSON."""
    CUT = "cut"
    """200 with JSON that ends in the middle."""
    TYPES = "types"
    """200 with JSON of the right names and the wrong types."""
    HTML = "html"
    """502 with a page, as a proxy on the way answers."""
    REDIRECT = "redirect"
    """307, which asks the client to send all of it, secrets included, to another host."""
    BROKEN = "500"
    UNAVAILABLE = "503"
    """With Retry-After, where the fault has seconds; so has 429."""
    TIMED_OUT = "504"
    THROTTLED = "429"
    GONE = "410"
    LOCKED = "locked"
    """409 ScopeLocked; of ARM's writes."""
    DENIED = "denied"
    """403 DenyAssignmentAuthorizationFailed; of ARM's writes."""


_COMMON = {Effect.SLOW, Effect.HANG, Effect.RESET, Effect.HTML, Effect.BROKEN, Effect.UNAVAILABLE}
_SIGN_IN = {Effect.RUBBISH, Effect.CUT, Effect.TYPES, Effect.REDIRECT, Effect.GONE}
SERVICES: Mapping[str, frozenset[Effect]] = MappingProxyType(
    {
        "arm": frozenset(
            {*_COMMON, Effect.TIMED_OUT, Effect.THROTTLED, Effect.LOCKED, Effect.DENIED}
        ),
        "entra": frozenset({*_COMMON, *_SIGN_IN, Effect.THROTTLED}),
        "imds": frozenset({*_COMMON, *_SIGN_IN, Effect.THROTTLED}),
        "apiserver": frozenset({*_COMMON, Effect.THROTTLED}),
    }
)
"""Each service that can fail, and what may befall its requests."""


Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Span(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A time of `least` to `most` seconds."""

    least: Seconds
    most: Seconds

    def __post_init__(self) -> None:
        """Raise ValueError where they are the other way round."""
        if self.least > self.most:
            raise ValueError("the least of these seconds is more than the most")

    def at(self, chance: float) -> float:
        """Return the time that a draw of 0 to 1 gives; half of them lie in the first eighth."""
        return self.least + (self.most - self.least) * chance**3

    def __str__(self) -> str:
        same = self.least == self.most
        return f"{self.least:g} s" if same else f"{self.least:g} to {self.most:g} s"


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What befalls a share of a service's requests, as a weather file says it."""

    effect: Effect
    share: Share = 1.0
    seconds: Span | Seconds = 0.0
    """Of `slow` until the answer, of 429 and 503 the Retry-After, in whole ones."""
    kind: str = ""
    """It strikes requests of this kind alone: a pattern such as `PATCH *`; "": of all kinds."""
    first: Count | None = None
    """It strikes among so many requests since the weather was set, of all kinds together or, with
    a `kind`, of each by itself; None: for ever."""

    @property
    def span(self) -> Span:
        return _span(self.seconds)

    def strikes(self, kind: str, number: int, of_all: int) -> bool:
        """Return whether it may strike that request; the arguments are those of `blow`."""
        if self.kind and not fnmatchcase(kind.lower(), self.kind.lower()):
            return False
        return self.first is None or (number if self.kind else of_all) <= self.first

    def __str__(self) -> str:
        seconds = f" ({self.span})" if self.span.most else ""
        first = "" if self.first is None else f" of the first {self.first}"
        kind = f" of {self.kind!r}" if self.kind else ""
        return f"{self.effect}{seconds}: {self.share:.0%}{first}{kind}"


def _span(seconds: Span | float) -> Span:
    return seconds if isinstance(seconds, Span) else Span(seconds, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """What befalls one request."""

    effect: Effect
    seconds: float = 0.0

    @property
    def headers(self) -> dict[str, str]:
        """The header that says when to come again, where the blow has one."""
        says = self.effect in {Effect.THROTTLED, Effect.UNAVAILABLE} and self.seconds
        return {"Retry-After": str(math.ceil(self.seconds))} if says else {}

    async def passes(self) -> bool:
        """Hold the request back as long as the blow does; return whether it is then served."""
        if self.effect is Effect.HANG:
            await asyncio.Event().wait()  # until the client leaves
        if self.effect is Effect.SLOW:
            await asyncio.sleep(self.seconds)
        return self.effect is Effect.SLOW


BAD_GATEWAY = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head></html>"
"""The page of HTML."""


def cut(transport: asyncio.BaseTransport | None) -> None:
    """End a connection with RST, None where it has ended already."""
    if isinstance(transport, asyncio.Transport):
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a change of a scale set goes once it was accepted."""

    seconds: float
    error: tuple[str, str] | None = None
    """Code and message of an operation that fails."""


# Codes and words: https://github.com/osbuild/osbuild-composer/issues/1447 (OperationPreempted);
# InternalExecutionError from memory.
PREEMPTED = "OperationPreempted"
_PREEMPTED = (PREEMPTED, "Operation execution has been preempted by a more recent operation.")
_FAILED = ("InternalExecutionError", "An internal execution error occurred. Please retry later.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """One weather, whole: nothing of it depends on another process or on the time."""

    name: str
    seed: int = 1
    times: Mapping[str, Span] = field(default_factory=dict)
    """By the words of TIMES; what is not there takes no time."""
    chances: Mapping[str, float] = field(default_factory=dict)
    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict)
    """By the names of SERVICES."""

    def seconds(self, time: str, number: int, key: str = "") -> float:
        """Return how long the change of that number takes, of all of that kind and key."""
        span = self.times.get(time)
        return span.at(self._draw(time, key, number)) if span is not None else 0.0

    def blow(
        self, service: str, kind: str, number: int, of_all: int, *, writes: bool
    ) -> Blow | None:
        """Return what befalls a request: the `number`th of its kind, the `of_all`th of its service.

        Both count from 1. `writes`: whether it changes something; a lock hinders nothing else.
        """
        faults = self.faults.get(service, ())
        left = self._draw(service, kind, number) if faults else 1.0
        for fault in faults:
            if not fault.strikes(kind, number, of_all):
                continue
            if fault.effect in {Effect.LOCKED, Effect.DENIED} and not writes:
                continue
            left -= fault.share
            if left < 0:
                chance = self._draw(f"{service} seconds", kind, number)
                return Blow(effect=fault.effect, seconds=fault.span.at(chance))
        return None

    def outcome(self, number: int) -> Outcome:
        chance = self._draw("outcome", "", number)
        failing, preempted = (self.chances.get(word, 0.0) for word in CHANCES)
        error = None
        if chance < failing + preempted:
            error = _FAILED if chance < failing else _PREEMPTED
        return Outcome(seconds=self.seconds("scale-sets", number), error=error)

    def _draw(self, *words: object) -> float:
        """Return a number from 0 to 1 that these words and the seed alone decide."""
        text = "\0".join(map(str, (RULES, self.seed, *words)))
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64

    def __str__(self) -> str:
        return f"weather {self.name}, seed {RULES}:{self.seed}"


_CALM_TIMES = {"scale-sets": Span(0.2, 0.2), "operations": Span(0.2, 0.2)}
_REAL_TIMES = {
    "answers": Span(0.005, 0.05),
    "roles": Span(5, 60),
    "removed-roles": Span(5, 60),
    "credentials": Span(5, 60),
    "removed-credentials": Span(5, 60),
    "identities": Span(0, 20),
    "scale-sets": Span(15, 60),
    "operations": Span(2, 20),
    "watches": Span(30, 300),
}
_OUTAGES = (Fault(Effect.UNAVAILABLE, 0.03), Fault(Effect.BROKEN, 0.03), Fault(Effect.RESET, 0.03))


CALM = Weather(name="calm", times=_CALM_TIMES)
NAMED: Mapping[str, Weather] = MappingProxyType(
    {
        "calm": CALM,
        "real": Weather(name="real", times=_REAL_TIMES, chances={"failing": 0.05}),
        "storm": Weather(
            name="storm",
            times={**_REAL_TIMES, "answers": Span(0.005, 0.5), "watches": Span(5, 60)},
            chances={"failing": 0.1, "preempted": 0.1},
            faults={
                "arm": (
                    Fault(Effect.THROTTLED, 0.06, Span(1, 10)),
                    *_OUTAGES,
                    Fault(Effect.LOCKED, 0.01),
                    Fault(Effect.DENIED, 0.01),
                ),
                "entra": (Fault(Effect.THROTTLED, 0.06, Span(1, 5)), *_OUTAGES),
                "imds": (Fault(Effect.THROTTLED, 0.06), Fault(Effect.GONE, 0.01), *_OUTAGES),
                "apiserver": (
                    Fault(Effect.THROTTLED, 0.06, 1.0),
                    Fault(Effect.UNAVAILABLE, 0.02, 1.0),
                    Fault(Effect.BROKEN, 0.02),
                    Fault(Effect.RESET, 0.03),
                ),
            },
        ),
    }
)


# ---- From and to text: a weather file, what a person sets, and the file of a sandbox
#
# One reader for all three, since JSON is YAML.


class WeatherError(Exception):
    """The text is no weather; the message says where and why."""


def named(word: str, *, seed: int | None = None) -> Weather:
    """Return the weather of that name, or of the file of that name; raise WeatherError."""
    found = NAMED[word] if word in NAMED else _of_file(Path(word))
    return found if seed is None else replace(found, seed=seed)


def seed_of(text: str) -> int:
    """Read a seed, as a number or as it is shown: `1:7`; raise WeatherError."""
    rules, colon, number = text.rpartition(":")
    if not number.isascii() or not number.isdecimal() or (colon and not rules.isdecimal()):
        raise WeatherError(f"{text!r} is no seed: give a number, or what `status` shows")
    if colon and int(rules) != RULES:
        raise WeatherError(
            f"the seed {text} is of rules {rules}, and this program has rules {RULES}: the same"
            f" seed gives other weather here. Say --weather-seed {number} to have that"
        )
    return int(number)


def changed(weather: Weather, settings: Sequence[str]) -> Weather:
    """Return `weather` with settings such as `roles=120` or `imds=[{effect: hang}]` in it.

    Raises WeatherError. The values are YAML, as in a weather file.
    """
    for setting in settings:
        word, equals, value = setting.partition("=")
        if not equals:
            raise WeatherError(f"{setting!r} is no setting: write it as WORD=VALUE")
        weather = _read(f"{word}: {value}", f"{word}=", weather)
    return replace(weather, name=f"{weather.name.removesuffix(', changed')}, changed")


def as_json(weather: Weather) -> dict[str, Any]:
    """Return a weather as the file of a sandbox has it: whole, with the rules of its seed."""
    return {
        "rules": RULES,
        "name": weather.name,
        "seed": weather.seed,
        **{word: [span.least, span.most] for word, span in weather.times.items()},
        **weather.chances,
        **{service: msgspec.to_builtins(faults) for service, faults in weather.faults.items()},
    }


def _of_file(path: Path) -> Weather:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(NAMED)
        raise WeatherError(f"{str(path)!r} is no weather ({known}) and no file: {error}") from error
    return _read(text, str(path), replace(CALM, name=path.name))


class _Loader(yaml.BaseLoader):
    """Reads YAML whose values are texts, until it is known what they should be."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; raise YAMLError where a key is there twice."""
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            words = f"{twice} is there twice"
            raise yaml.constructor.ConstructorError(None, None, words, node.start_mark)
        return super().construct_mapping(node, deep)


def _read(text: str, source: str, base: Weather) -> Weather:
    """Return the weather of YAML text, which begins with `base` or with the one that it names."""
    try:
        found = yaml.load(text, _Loader)  # noqa: S506 - its loader makes texts, and no objects
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise WeatherError(f"{source}{where}: not YAML: {getattr(error, 'problem', '')}") from error
    if not isinstance(found, dict):
        raise WeatherError(f"{source}: a weather is a mapping of words to values")
    weather = _beginning(found, source, base)
    times, chances, faults = dict(weather.times), dict(weather.chances), dict(weather.faults)
    for word, value in found.items():
        where = f"{source}: {word}"
        if word in TIMES:
            how = "give seconds, or the least and the most of them: 5, or [5, 60]"
            times[word] = _span(_taken(value, Span | Seconds, where, how))
        elif word in CHANCES:
            chances[word] = _taken(value, Share, where, "give a share from 0 to 1")
        elif word in SERVICES:
            how = f"give a list of faults, each with an effect: {_effects_of(word)}"
            faults[word] = _taken(value, tuple[Fault, ...], where, how)
            for fault in faults[word]:
                if fault.effect not in SERVICES[word]:
                    no = f"{str(fault.effect)!r} is none of its effects: {_effects_of(word)}"
                    raise WeatherError(f"{where}: {no}")
            whole = sum(each.share for each in faults[word] if each.first is None and not each.kind)
            if whole > 1:
                raise WeatherError(f"{where}: the shares are {whole:g} together, and 1 is all")
        else:
            known = ", ".join(("from", "seed", *TIMES, *CHANCES, *SERVICES))
            raise WeatherError(f"{source}: there is no {word!r}: the words are {known}")
    return replace(weather, times=times, chances=chances, faults=faults)


def _beginning(found: dict[str, Any], source: str, base: Weather) -> Weather:
    """Take out of `found` what says where the weather begins, and return that."""
    made = _taken(found.pop("rules", RULES), int, f"{source}: rules", "give a number")
    if made != RULES:
        raise WeatherError(f"{source}: it is of rules {made}, and this program has rules {RULES}")
    name = str(found.pop("name", base.name))
    if "from" in found:
        beginning = found.pop("from")
        if beginning not in NAMED:
            known = ", ".join(NAMED)
            raise WeatherError(f"{source}: from: {beginning!r} is none of {known}")
        base = NAMED[beginning]
    seed = _taken(found.pop("seed", base.seed), Count, f"{source}: seed", "give a whole number")
    return replace(base, name=name, seed=seed)


def _effects_of(service: str) -> str:
    return ", ".join(sorted(SERVICES[service]))


def _taken(value: object, kind: Any, where: str, how: str) -> Any:  # noqa: ANN401 - a `kind`
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise WeatherError(f"{where}: {how} ({error})") from error


# ---- The weather in force in a process


def write(folder: Path, weather: Weather) -> None:
    """Put a weather in force in the sandbox of `folder`, for every request from now on."""
    new = folder / f"{FILE}.new"
    new.write_text(json.dumps(as_json(weather), indent=2) + "\n")
    new.replace(folder / FILE)


def read(folder: Path) -> Weather:
    """Return the weather in force in the sandbox of `folder`; raise WeatherError."""
    path = folder / FILE
    return _of_file(path) if path.exists() else CALM


class Struck(msgspec.Struct, frozen=True, array_like=True):
    """One line of the journal: what befell a request, or a change of a scale set."""

    service: str
    kind: str
    number: int
    """Of its kind since the weather was set."""
    effect: str
    """An `Effect`, or the code of a failed operation."""
    at: float
    """In seconds since the epoch."""
    about: str
    """The path of what was asked for; "" at IMDS and Entra, which have one for all."""

    def __str__(self) -> str:
        words = (self.service, self.kind, self.number, self.effect, f"{self.at:.3f}", self.about)
        return "\t".join(map(str, words))


def journal(folder: Path) -> list[Struck]:
    """Return what the weather did in the sandbox of `folder`, oldest first."""
    path = folder / JOURNAL
    lines = path.read_text().splitlines() if path.exists() else []
    return msgspec.convert([line.split("\t") for line in lines], list[Struck], strict=False)


class WeatherInForce:
    """The weather of the moment, for one process, and the numbers of what it decided on."""

    def __init__(self, folder: Path | None = None, weather: Weather = CALM) -> None:
        """Without a folder the weather is `weather`, until `set` gives another."""
        self._path = folder / FILE if folder else None
        self._weather = weather
        self._version: tuple[int, int] | None = None
        self._counts: Counter[tuple[str, ...]] = Counter()

    def set(self, weather: Weather) -> None:
        """Put another weather in force: its numbers begin with 1."""
        self._weather = weather
        self._counts.clear()

    @property
    def now(self) -> Weather:
        """The weather in force: the file's, read again when it was replaced."""
        if self._path is not None:
            try:
                found = self._path.stat()
            except FileNotFoundError:
                return self._weather
            version = (found.st_mtime_ns, found.st_ino)
            if version != self._version:
                self.set(_of_file(self._path))
                self._version = version
        return self._weather

    def seconds(self, time: str, key: str = "") -> float:
        """Return how long the next change of that kind takes."""
        weather = self.now
        return weather.seconds(time, self._next(time, key), key)

    def blow(
        self, service: str, kind: str, *, writes: bool = False, about: str = ""
    ) -> Blow | None:
        """Return what befalls the next request of that kind to a service.

        `about` is what the request asks for: it decides nothing, and stands in the journal.
        """
        weather = self.now
        number, of_all = self._next(service, kind), self._next("all", service)
        blow = weather.blow(service, kind, number, of_all, writes=writes)
        if blow is not None:
            self._note(service, kind, number, blow.effect, about)
        return blow

    def outcome(self, about: str = "") -> Outcome:
        weather = self.now
        number = self._next("outcome")
        outcome = weather.outcome(number)
        if outcome.error is not None:
            self._note("arm", "operation", number, outcome.error[0], about)
        return outcome

    def _note(self, service: str, kind: str, number: int, effect: str, about: str) -> None:
        if self._path is None:
            return
        kind, about = (" ".join(words.split()) for words in (kind, about))
        struck = Struck(service, kind, number, effect, time.time(), about)
        with self._path.with_name(JOURNAL).open("a") as file:
            file.write(f"{struck}\n")

    def _next(self, *words: str) -> int:
        self._counts[words] += 1
        return self._counts[words]
