"""No pattern that reads strangers' bytes can backtrack for seconds over them."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import podidentity.core
import podidentity.wire
from podidentity.cli.checks import redaction
from podidentity.settings import METADATA_ALLOWED
from podidentity.wire.imds import AllowList, classify

SIZE = 16 << 10
"""Bytes: the longest head that the agent reads."""
MOST_SECONDS = 1.0
"""Of CPU. The slowest of ours takes milliseconds, on a crowded machine a tenth of a second; the
cubic one that was here took 16 s."""


def patterns() -> dict[str, re.Pattern[Any]]:
    """Return each pattern of the formats, of the values in them, and of `check --bundle`."""
    found = {f"redaction.FORMS[{sign!r}]": each for sign, each in redaction._FORMS.items()}
    for name in ("_NAMED", "_IS_NAMED", "_AND_VALUE", "_FLAG", "_TOLD", "_NUMBER", "_COUNTS"):
        found[f"redaction.{name}"] = getattr(redaction, name)
    for package in (podidentity.wire, podidentity.core):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    found[f"{module.name.removeprefix('podidentity.')}.{name}"] = value
    return found


def alphabet(tree: Any) -> Iterator[str]:
    """Yield the words of a pattern: runs of literal characters, and a member of each class."""
    word = ""
    for code, value in tree:
        if code is codes.LITERAL:
            word += chr(value)
            continue
        if word:
            yield word
        word = ""
        yield from _inside(code, value)
    if word:
        yield word


_CLASSES = {codes.IN, codes.NOT_LITERAL, codes.ANY}
_TREE_AT = {
    codes.MAX_REPEAT: 2,
    codes.MIN_REPEAT: 2,
    codes.POSSESSIVE_REPEAT: 2,
    codes.SUBPATTERN: 3,
}
"""Where in an operation's arguments the pattern inside of it is."""


def _inside(code: Any, value: Any) -> Iterator[str]:
    if code in _CLASSES:
        yield from _members(code, value)
    elif code in _TREE_AT:
        yield from alphabet(value[_TREE_AT[code]])
    elif code is codes.ATOMIC_GROUP:
        yield from alphabet(value)
    elif code is codes.BRANCH:
        for branch in value[1]:
            yield from alphabet(branch)


def _members(code: Any, value: Any) -> Iterator[str]:
    if code is not codes.IN:
        yield "x"
        return
    for kind, member in value:
        if kind is codes.LITERAL:
            yield chr(member)
        elif kind is codes.RANGE:
            yield chr(member[0])


def texts(pattern: re.Pattern[Any], size: int) -> Iterator[str]:
    """Yield so many characters of the pattern's words: each alone, in pairs, and in their order."""
    source = pattern.pattern
    text = source.decode("latin-1") if isinstance(source, bytes) else source
    words = list(dict.fromkeys(alphabet(parser.parse(text, pattern.flags & ~re.UNICODE))))
    pairs = [first + second for first in words for second in words]
    for word in dict.fromkeys([*words, *pairs[:200], "".join(words)]):
        yield (word * (size // len(word) + 1))[:size] + "!"
    for count in range(1, len(words) + 1):
        share = size // count
        yield "".join((word * (share // len(word) + 1))[:share] for word in words[:count])


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of `work`: the least of three tries, if the first takes too long.

    A virtual machine's processor may be taken from it meanwhile, and that is counted, too.
    """
    least = inf
    for _ in range(3):
        begun = time.thread_time()
        work()
        least = min(least, time.thread_time() - begun)
        if least < MOST_SECONDS:
            break
    return least


def slowest(pattern: re.Pattern[Any], size: int = SIZE) -> float:
    """Return the CPU seconds of the worst text for it, or of the first that takes too long."""
    worst = 0.0
    for text in texts(pattern, size):
        read = text if isinstance(pattern.pattern, str) else text.encode("latin-1")
        for use in (pattern.search, pattern.fullmatch):
            worst = max(worst, seconds(partial(use, read)))
            if worst > MOST_SECONDS:
                return worst
    return worst


@pytest.mark.parametrize("name", patterns())
def test_a_pattern_reads_16_kilobytes_of_its_own_alphabet_at_once(name: str) -> None:
    assert slowest(patterns()[name]) < MOST_SECONDS


def test_patterns_are_found_and_a_cubic_one_would_be_noticed() -> None:
    assert len(patterns()) > 8
    part = SIZE // 4
    assert slowest(re.compile(r"identity.*oauth2.*token"), part) * (SIZE / part) ** 3 > MOST_SECONDS


def test_a_long_path_of_the_words_of_the_token_path_is_classified_at_once() -> None:
    target = "/metadata/identity/" + "identity" * 500 + "oauth2" * 500
    assert seconds(lambda: classify(target, AllowList(METADATA_ALLOWED))) < MOST_SECONDS


@pytest.mark.parametrize("part", ["-", "--a", "secret", "--secret", "token=\\", "secret= ", "eyJ-"])
def test_a_tenants_annotation_of_a_megabyte_does_not_delay_the_archive(part: str) -> None:
    text = 'token=\\"' + part * ((1 << 20) // len(part))
    assert seconds(lambda: redaction.redacted(text)) < MOST_SECONDS
