"""What follows from the annotated values of the chart: their schema, their table, and its copies.

`python -m deploy.values` (`scripts/chart`) writes it; a test compares. A comment above a key of
values.yaml is its sentence. Lines of it that begin with `type:`, `one of:` or `items:` are no part
of the sentence: they say more than the default does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/chart"
VALUES = CHART / "values.yaml"
MANIFESTS = ROOT / "src/podidentity/manifests"
ALERTS = ROOT / "docs/how-to/alerts.yaml"

COPIED = [*sorted(MANIFESTS.glob("*.yaml")), *sorted(MANIFESTS.glob("*.service")), ALERTS]
"""What the chart's templates read: a chart cannot read files outside of its folder."""

NO_EFFECT = "No effect"
"""How the sentence of a value begins that is accepted for the sake of old values files."""

Schema = dict[str, Any]

_HINT = re.compile(r"^(type|one of|items): (.*)$")
_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the chart."""

    path: tuple[str, ...]
    default: Any
    sentence: str
    types: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    items: tuple[str | int, ...] = ()
    parts: tuple[Value, ...] = ()
    """Its own values, each with a sentence; () where its keys are the user's or Kubernetes'."""

    @property
    def name(self) -> str:
        """Its path, with dots."""
        return ".".join(self.path)

    def walk(self) -> Iterator[Value]:
        """Yield it, if it has a sentence, and its parts."""
        if self.sentence:
            yield self
        for part in self.parts:
            yield from part.walk()


def read(text: str) -> list[Value]:
    """Return the values of an annotated file, a mapping; raise ValueError without a sentence."""
    return _parts(yaml.compose(text), text.splitlines(), ())


def _parts(node: yaml.Node | None, lines: list[str], above: tuple[str, ...]) -> list[Value]:
    found = []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        path = (*above, key.value)
        comment = _comment(lines, key.start_mark.line)
        hints = {match[1]: match[2] for line in comment if (match := _HINT.match(line))}
        sentence = " ".join(line for line in comment if not _HINT.match(line))
        parts: tuple[Value, ...] = ()
        if isinstance(value, yaml.MappingNode) and any(
            _comment(lines, part.start_mark.line) for part, _ in value.value
        ):
            parts = tuple(_parts(value, lines, path))
        if not sentence and not parts:
            raise ValueError(f"values.yaml: {'.'.join(path)} has no sentence")
        found.append(
            Value(
                path=path,
                default=yaml.safe_load(yaml.serialize(value)),
                sentence=sentence,
                types=tuple(hints.get("type", "").replace(",", " ").split()),
                one_of=tuple(_words(hints.get("one of", ""))),
                items=tuple(
                    int(word) if word.isdigit() else word for word in _words(hints.get("items", ""))
                ),
                parts=parts,
            )
        )
    return found


def _words(text: str) -> Iterator[str]:
    for word in filter(None, (each.strip() for each in text.split(","))):
        yield str(yaml.safe_load(word) if word.startswith('"') else word)


def _comment(lines: list[str], at: int) -> list[str]:
    found: list[str] = []
    indent = len(lines[at]) - len(lines[at].lstrip())
    for line in reversed(lines[:at]):
        if not line.startswith(f"{' ' * indent}# "):
            break
        found.insert(0, line.strip().removeprefix("# "))
    return found


_TEXT: Schema = {"type": "string"}
IDENTITY: dict[str, tuple[str, Schema]] = {
    "name": ("Name of the AzureIdentity; its key if left out.", _TEXT),
    "namespace": ("Namespace of both objects; the release's if left out.", _TEXT),
    "type": (
        "0: managed identity, 1: application with a secret, 2: with a certificate, 3: federated.",
        {"enum": [0, 1, 2, 3, "0", "1", "2", "3"]},
    ),
    "resourceID": ("ARM id of the managed identity; required for type 0.", _TEXT),
    "clientID": ("Client id; required.", _TEXT),
    "tenantID": ("Tenant; required for types 1, 2 and 3.", _TEXT),
    "clientPassword": (
        "The Secret, as {name, namespace} or as JSON of it; required for types 1 and 2.",
        {"type": ["string", "object"]},
    ),
    "auxiliaryTenantIDs": ("Further tenants.", {"type": ["array", "null"], "items": _TEXT}),
    "adEndpoint": ("Authority; the cloud's if left out.", _TEXT),
    "objectID": ("Object id, by which pods may ask, too.", _TEXT),
    "federation": ("For type 3: subject, audience and via.", {"type": "object"}),
    "binding": (
        "name, the identity's if left out, and selector, the value of the pods' label; required.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector"],
            "properties": {
                "name": {**_TEXT, "description": "Name of the AzureIdentityBinding."},
                "selector": {
                    "type": "string",
                    "minLength": 1,
                    "description": "Value of the pods' label aadpodidbinding.",
                },
            },
        },
    ),
}
"""The keys of an entry of azureIdentities: each with its sentence."""


def schema(values: list[Value]) -> Schema:
    """Return the JSON schema of the values: what is not in it is a mistake of its writer."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart podidentity",
        **_object(values),
    }


def _object(values: list[Value] | tuple[Value, ...]) -> Schema:
    properties = {each.path[-1]: _schema(each) for each in values}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema(value: Value) -> Schema:
    described: Schema = {"description": value.sentence} if value.sentence else {}
    if value.path == ("azureIdentities",):
        entry = {
            "type": "object",
            "additionalProperties": False,
            "required": ["clientID", "binding"],
            "properties": {
                key: {"description": sentence, **form} for key, (sentence, form) in IDENTITY.items()
            },
        }
        return {**described, "type": "object", "additionalProperties": entry}
    if value.parts:
        return {**described, **_object(value.parts)}
    if value.one_of:
        words: list[Any] = list(value.one_of)
        if "boolean" in value.types:
            words += [True, False]
        return {**described, "enum": words}
    types = list(value.types) or [_TYPES[type(value.default)]]
    form: Schema = {"type": types[0] if len(types) == 1 else types}
    if value.items:
        form["items"] = {"enum": list(value.items)}
    return {**described, **form}


def no_effect(values: list[Value]) -> dict[str, Any]:
    """Return the values without effect, by path, with the defaults of which nothing is said."""
    return {
        each.name: each.default
        for value in values
        for each in value.walk()
        if each.sentence.startswith(NO_EFFECT)
    }


def table(values: list[Value]) -> str:
    """Return the table of the values in Markdown."""
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for each in (each for value in values for each in value.walk()):
        default = "" if each.parts else f"`{json.dumps(each.default)}`"
        choice = (
            f" One of {', '.join(_shown(word) for word in each.one_of)}." if each.one_of else ""
        )
        lines.append(f"| `{each.name}` | {default} | {_cell(each.sentence + choice)} |")
        if each.path == ("azureIdentities",):
            lines += [
                f"| `azureIdentities.NAME.{key}` | | {_cell(sentence)} |"
                for key, (sentence, _) in IDENTITY.items()
            ]
    return "\n".join(lines) + "\n"


def _shown(word: str) -> str:
    return f"`{word}`" if word else "empty"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


_TABLE = re.compile(
    r"(?<=<!-- values: written by scripts/chart -->\n\n).*(?=\n<!-- end of values)", re.DOTALL
)


def written(page: str, values: list[Value]) -> str:
    """Return the chart's README with the table as it should be."""
    return _TABLE.sub(lambda _: table(values), page)


def files() -> Mapping[Path, str]:
    """Return what is made of other files, by its path."""
    values = read(VALUES.read_text())
    readme = CHART / "README.md"
    copies = {CHART / "files" / path.name: path.read_text() for path in COPIED}
    return {
        **copies,
        CHART / "files/no-effect.yaml": yaml.safe_dump(no_effect(values), sort_keys=True),
        CHART / "values.schema.json": json.dumps(schema(values), indent=2) + "\n",
        readme: written(readme.read_text(), values),
    }


def main() -> None:
    """Write it."""
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
