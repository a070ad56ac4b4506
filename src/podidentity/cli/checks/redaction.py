"""Takes secrets out of what is given to others: tokens, passwords, keys, in texts and in objects.

Nothing of ours writes a secret to a log or an object; but an archive for a ticket has what others
wrote there, too. So texts are searched for the forms that tokens and keys have, wherever they are,
and objects lose what is known to carry copies: values of variables, and annotations of kubectl.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

GONE = "[redacted]"
_KEYWORD = (
    r"(?:secret|passw(?:or)?d|token|credential|assertion|api[_-]?key|account[_-]?key|signature)"
)
_NAME = rf"(?: (?= [\w.-]*? {_KEYWORD} ) [\w.-]++ | sig (?![\w.-]) )"
"""The whole name of a secret.

Each pattern with it begins at the start of a word alone, and gives nothing back of a word. So a
word is read once, however long it is and whatever it repeats: the time grows with the text's length
(tests/wire/test_linear_time.py).
"""
_FORMS = {
    # JSON Web Tokens, whole or cut: https://datatracker.ietf.org/doc/html/rfc7519
    "eyj": re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}"),
    "bearer": re.compile(r"(?i)\bbearer\s+[\w.~+/=-]{8,}"),
    "basic": re.compile(r"(?i)\bbasic\s+[a-z0-9+/=]{12,}"),
    # Private keys, whole or cut; certificates are public.
    "private key-----": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    # Client secrets that Entra makes.
    "q~": re.compile(r"(?<![\w.~-])[\w.~-]{3}[78]Q~[\w.~-]{31,34}"),
    # Keys of storage accounts and the like: 64 bytes in Base64.
    "==": re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{86}=="),
    # Passwords in URLs.
    "://": re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
}
"""By what each has in it, in small letters: few texts have one, and few patterns search a text."""
_NAMED = re.compile(
    rf"""(?ix)
    (?P<name> (?<![\w.-]) {_NAME} )
    (?P<between> [\\"']*+ \s*+ [=:] \s*+ )
    (?P<value>
      \\++"(?:[^\\\n]++|\\++(?!"))*+ | "(?:[^"\\]|\\.)*+" | '[^']*+' | [^\s,;&"'\\\[\]{{}}]++
    )
    """
)
"""A name of a secret, and its value: JSON, JSON in a string, forms, flags, and fields of a log."""
_FLAG = re.compile(rf"(?ix) (?<![\w.-]) -- {_NAME}")
_AND_VALUE = re.compile(
    rf"""(?ix) ( (?: (?<![\w.-]) | (?<=\\[nrt]) ) -- {_NAME} \s++ ) [^\s"'\\-] [^\s"'\\]*+ """
)
_TOLD = re.compile(r"(?i)[\"']?(?:true|false|null|none|\[redacted\])[\"']?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_COUNTS = re.compile(r"(?i)seconds|expir|count|size|port|total")
_SIGNS = ("secret", "passw", "token", "credential", "assertion", "key", "sig")
"""One of them, in small letters, is in each name of a secret."""
_IS_NAMED = re.compile(rf"""(?ix) (?<![\w.-]) {_NAME} [\\"'\s]*+ \Z""")
_NESTED = (dict, list)
LEVELS = 40
"""Of an object that are shown; the deepest of ours, a definition, has 19."""
_HIDDEN = {"kubectl.kubernetes.io/last-applied-configuration", "data", "stringData", "binaryData"}


def redacted(text: str) -> str:
    """Return a text without anything that has the form, or the name, of a secret."""
    if len(text) < len("sig=x"):
        return text
    # As a pattern without regard to case has it: these two are an i, and fold to something else.
    small = text.casefold().replace("\u0131", "i").replace("\u0307", "")
    for sign, form in _FORMS.items():
        if sign in small:
            text = form.sub(GONE, text)
    for sign in _SIGNS:
        if sign in small:
            text = _NAMED.sub(_named, text)
            return _AND_VALUE.sub(rf"\1{GONE}", text) if "--" in text else text
    return text


_KEPT = 256
"""Letters of a name whose answer is kept; a tenant may write one of a megabyte."""


@lru_cache(maxsize=1024)
def _shown(name: str) -> tuple[str, bool]:
    """Return the name of a member as it is shown, and whether it is a secret's."""
    return redacted(name), bool(_IS_NAMED.search(name))


def _named(found: re.Match[str]) -> str:
    value = found["value"]
    if _is_told(found["name"], value):
        return found[0]
    quote = value[0] if value[0] in "\"'" else ""
    opened = value[: value.index('"') + 1] if value[0] == "\\" else quote
    return f"{found['name']}{found['between']}{opened}{GONE}{quote}"


def _is_told(name: str, value: str) -> bool:
    """Whether a value is shown, though its name is a secret's: a number may count something."""
    return bool(_TOLD.fullmatch(value) or (_NUMBER.fullmatch(value) and _COUNTS.search(name)))


def redacted_object(value: object, levels: int = LEVELS) -> object:
    """Return data without the values of variables, copies of other objects, and secrets.

    A tenant may nest 10,000 levels, more than Python calls.
    """
    if isinstance(value, _NESTED) and not levels:
        return f"[more than {LEVELS} levels]"
    if isinstance(value, list):
        return [redacted_object(each, levels - 1) for each in value]
    if isinstance(value, str):
        return redacted(value)
    if not isinstance(value, dict):
        return value
    shown = {}
    for name, each in value.items():
        if name != "managedFields":
            text, is_secret = (_shown if len(name) <= _KEPT else _shown.__wrapped__)(name)
            shown[text] = _member(name, each, levels - 1, is_secret=is_secret)
    return shown


def _member(name: str, value: object, levels: int, *, is_secret: bool) -> object:
    nested = isinstance(value, _NESTED)
    if name in _HIDDEN or (is_secret and not nested and not _is_told(name, str(value))):
        return GONE
    if isinstance(value, list) and is_secret and levels:
        return [_member(name, each, levels - 1, is_secret=True) for each in value]
    if isinstance(value, list) and name == "env":
        return [_variable(each, levels) for each in value]
    if isinstance(value, list) and name in {"args", "command"}:
        return list(_arguments(value, levels))
    return redacted_object(value, levels)


def _variable(entry: object, levels: int) -> object:
    """Return a variable of a container without its value, unless that is taken from a field."""
    if isinstance(entry, dict) and "value" in entry:
        return {"name": redacted_object(entry.get("name"), levels), "value": GONE}
    return redacted_object(entry, levels)


def _arguments(words: Sequence[object], levels: int) -> Iterator[object]:
    """Yield the words of a command line; the one behind a flag of a secret is one."""
    hidden = False
    for each in words:
        yield GONE if hidden else redacted_object(each, levels)
        hidden = isinstance(each, str) and bool(_FLAG.fullmatch(each))
