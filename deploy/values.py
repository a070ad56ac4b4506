"""What follows from the annotated values of the chart: their schema, their table, and its copies.

`python -m deploy.values` (`scripts/chart`) writes it; a test compares. A comment above a key of
values.yaml is its sentence. Lines of it that begin with `type:`, `one of:`, `items:` or `form:` are
no part of the sentence: they say more than the default does. A form is a key of FORMS.
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

_HINT = re.compile(r"^(type|one of|items|form): (.*)$")
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
    form: str = ""
    """Its key in FORMS, if its type does not say enough."""
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
            part.start_mark.line > key.start_mark.line and _comment(lines, part.start_mark.line)
            for part, _ in value.value
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
                form=hints.get("form", ""),
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


def _text(pattern: str, *, empty: bool = True) -> Schema:
    """Return the schema of a text that matches, or is empty.

    Helm reads patterns as Go does, editors as JavaScript does: nothing in one may be special to
    either.
    """
    return {"type": "string", "pattern": f"^({pattern})?$" if empty else f"^({pattern})$"}


def _any_case(text: str) -> str:
    """Return the pattern of a text in letters of any case."""
    return "".join(f"[{c.upper()}{c.lower()}]" if c.isalpha() else re.escape(c) for c in text)


def _mapping(values: Schema, keys: str = ".*", too_long: str = "^.{254}") -> Schema:
    # `propertyNames` would do, but Helm 4 reports its errors at another value.
    patterns = {f"^({keys})$": values, too_long: False}
    return {"type": "object", "patternProperties": patterns, "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _number(least: int, most: int = 999_999_999, words: str = "0*[0-9]{1,9}") -> Schema:
    """Return the schema of a whole number, or of its digits; "" is the default."""
    return {"minimum": least, "maximum": most, "pattern": f"^({words})?$"}


def _record(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object with these keys alone; one that ends with `_` is without."""
    return {
        "type": "object",
        "required": [*required],
        "additionalProperties": False,
        "properties": {key.removesuffix("_"): each for key, each in properties.items()},
    }


_LABEL_VALUE = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DNS_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_PART = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_DNS_NAME = f"{_DNS_PART}([.]{_DNS_PART})*"
_KEY = f"({_DNS_LABEL}([.]{_DNS_LABEL})*/)?{_LABEL_VALUE}"
"""Key of a label, an annotation or a taint."""
_LONG_PREFIX = "^[^/]{254}"
_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_PATH_PART = "[a-z0-9]+([._-]+[a-z0-9]+)*"
_GUID = "-".join(f"[0-9A-Fa-f]{{{n}}}" for n in (8, 4, 4, 4, 12))
_SEGMENT = "[^/\\s\"'?#%]+"
_EXACT = 10**15 - 1
"""Helm reads and compares numbers as float64, which holds each whole number up to here."""
_QUANTITY = {
    "type": ["string", "number"],
    "minimum": 0,
    "maximum": _EXACT,
    "maxLength": 15,
    "pattern": "^[0-9]+([.][0-9]*)?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$",
}
_INT32 = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_SHARE = {
    "type": ["string", "integer"],
    "minimum": 0,
    "maximum": 999_999_999,
    "pattern": "^(0*[0-9]{1,2}|100)%$",
}
_LABELS = _mapping({"type": "string", "pattern": f"^({_LABEL_VALUE})?$"}, _KEY, _LONG_PREFIX)
_DIGITS = "[0-9]{1,9}"
_TEXT: Schema = {"type": "string"}
_NAME: Schema = {**_text(_DNS_NAME), "maxLength": 253}
_FULL_NAME: Schema = {**_text(_DNS_NAME, empty=False), "maxLength": 253}
_SHORT = {"not": {"pattern": _LONG_PREFIX}}
_FULL_KEY = {**_text(_KEY, empty=False), **_SHORT}
_AMOUNTS = {
    **_mapping(_QUANTITY, "cpu|memory|ephemeral-storage"),
    "type": ["object", "null"],
}
_WEIGHT = {"type": "integer", "minimum": 1, "maximum": 100}


def _chosen(*operators: str) -> Schema:
    values = _list(_text(_LABEL_VALUE))
    operator = {"enum": ["In", "NotIn", "Exists", "DoesNotExist", *operators]}
    return _list(_record("key", "operator", key=_FULL_KEY, operator=operator, values=values))


_SELECTOR, _PODS, _NEAR = (
    {"$ref": f"#/definitions/{name}"} for name in ("label selector", "pods", "near pods")
)
_NODES = _record(matchExpressions=_chosen("Gt", "Lt"), matchFields=_list({"type": "object"}))
FORMS: dict[str, Schema] = {
    "repository": _text(f"([A-Za-z0-9.-]+(:[0-9]+)?/)?{_PATH_PART}(/{_PATH_PART})*"),
    "tag": _text("[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"),
    "digest": _text("sha256:[0-9a-f]{64}"),
    "guid": _text(_GUID),
    "tenant": _text(f"{_GUID}|adfs|([A-Za-z0-9-]+[.])+[A-Za-z0-9-]+"),
    "port": _number(1, 65535, _PORT),
    "port or 0": _number(0, 65535, f"0|{_PORT}"),
    "count": _number(0),
    "switch": {"pattern": "^([Tt]rue|[Ff]alse)?$"},
    "seconds": _number(1),
    "duration": _text(f"({_DIGITS}([.]{_DIGITS})?(ms|s|m|h))+"),
    "lease": _text(
        f"0*([3-9]|[1-9][0-9]{{1,7}})s|0*[1-9][0-9]{{0,7}}m({_DIGITS}s)?|"
        f"0*[1-9][0-9]{{0,7}}h({_DIGITS}m)?({_DIGITS}s)?"
    ),
    "interval": _text(f"({_DIGITS}(y|w|d|h|m|s|ms))+", empty=False),
    "line": _text("[ -~]+"),
    "name": _NAME,
    "namespace": _text(_DNS_LABEL, empty=False),
    "namespace or none": _text(_DNS_LABEL),
    "key": _FULL_KEY,
    "selector": _text(_LABEL_VALUE),
    "path": _text("(/([^/:.][^/:]*|[.][^/:.][^/:]*|[.][.][^/:]+))+/?"),
    "log file": _text("-|(/[^/]+)+"),
    "unit": _text("[A-Za-z0-9:_.@-]+[.]service", empty=False),
    "labels": _LABELS,
    "annotations": _mapping(_TEXT, _KEY, _LONG_PREFIX),
    "SELinux options": _record(user=_TEXT, role=_TEXT, type_=_TEXT, level=_TEXT),
    "words": _list({"type": "string", "minLength": 1}),
    "guids": _list(_text(_GUID, empty=False)),
    "secrets": _list(_record("name", name=_FULL_NAME)),
    "tolerations": _list(
        {
            **_record(
                key={**_text(_KEY), **_SHORT},
                operator={"enum": ["Exists", "Equal"]},
                value=_text(_LABEL_VALUE),
                effect={"enum": ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]},
                tolerationSeconds={"type": "integer", "minimum": -_EXACT, "maximum": _EXACT},
            ),
            "anyOf": [
                {"required": ["key"], "properties": {"key": {"minLength": 1}}},
                {"required": ["operator"], "properties": {"operator": {"const": "Exists"}}},
            ],
            "if": {"required": ["operator"], "properties": {"operator": {"const": "Exists"}}},
            "then": {"properties": {"value": {"maxLength": 0}}},
            "dependencies": {
                "tolerationSeconds": {
                    "required": ["effect"],
                    "properties": {"effect": {"const": "NoExecute"}},
                }
            },
        }
    ),
    "resources": _record(requests=_AMOUNTS, limits=_AMOUNTS),
    "label selector": _record(matchLabels=_LABELS, matchExpressions=_chosen()),
    "pods": _record(
        "topologyKey",
        topologyKey=_FULL_KEY,
        labelSelector=_SELECTOR,
        namespaceSelector=_SELECTOR,
        namespaces=_list(_text(_DNS_LABEL, empty=False)),
        matchLabelKeys=_list(_FULL_KEY),
        mismatchLabelKeys=_list(_FULL_KEY),
    ),
    "near pods": _record(
        requiredDuringSchedulingIgnoredDuringExecution=_list(_PODS),
        preferredDuringSchedulingIgnoredDuringExecution=_list(
            _record("weight", "podAffinityTerm", weight=_WEIGHT, podAffinityTerm=_PODS)
        ),
    ),
    "affinity": _record(
        nodeAffinity=_record(
            requiredDuringSchedulingIgnoredDuringExecution=_record(
                "nodeSelectorTerms", nodeSelectorTerms={**_list(_NODES), "minItems": 1}
            ),
            preferredDuringSchedulingIgnoredDuringExecution=_list(
                _record("weight", "preference", weight=_WEIGHT, preference=_NODES)
            ),
        ),
        podAffinity=_NEAR,
        podAntiAffinity=_NEAR,
    ),
    "spread": _list(
        _record(
            *("maxSkew", "topologyKey", "whenUnsatisfiable"),
            maxSkew=_INT32,
            minDomains=_INT32,
            topologyKey=_FULL_KEY,
            whenUnsatisfiable={"enum": ["DoNotSchedule", "ScheduleAnyway"]},
            labelSelector=_SELECTOR,
            matchLabelKeys=_list(_FULL_KEY),
            nodeAffinityPolicy={"enum": ["Honor", "Ignore"]},
            nodeTaintsPolicy={"enum": ["Honor", "Ignore"]},
        )
    ),
    "update strategy": _record(
        "type",
        type_={"enum": ["RollingUpdate", "OnDelete"]},
        rollingUpdate={
            **_record(maxSurge=_SHARE, maxUnavailable=_SHARE),
            "type": ["object", "null"],
            "not": {
                "required": ["maxSurge", "maxUnavailable"],
                "properties": {
                    "maxSurge": {"enum": [0, "0%"]},
                    "maxUnavailable": {"enum": [0, "0%"]},
                },
            },
        },
    ),
    "disruption budget": {
        **_record(
            minAvailable=_SHARE,
            maxUnavailable=_SHARE,
            unhealthyPodEvictionPolicy={"enum": ["IfHealthyBudget", "AlwaysAllow"]},
        ),
        "not": {"required": ["minAvailable", "maxUnavailable"]},
    },
    "AppArmor profile": {
        **_record(
            type_={"enum": ["Localhost", "RuntimeDefault", "Unconfined"]},
            localhostProfile={**_text("\\S(.*\\S)?", empty=False), "maxLength": 4095},
        ),
        "dependencies": {
            "localhostProfile": {
                "required": ["type"],
                "properties": {"type": {"const": "Localhost"}},
            }
        },
        "if": {"required": ["type"], "properties": {"type": {"const": "Localhost"}}},
        "then": {"required": ["localhostProfile"]},
    },
}
"""Forms of values. The API server would refuse other texts, or a program would not start."""

IDENTITY: dict[str, tuple[str, Schema]] = {
    "name": ("Name of the AzureIdentity; its key if left out.", FORMS["name"]),
    "namespace": ("Namespace of both objects; the release's if left out.", _text(_DNS_LABEL)),
    "type": (
        "0: managed identity, 1: application with a secret, 2: with a certificate, 3: federated.",
        {"enum": [0, 1, 2, 3, "0", "1", "2", "3"]},
    ),
    "resourceID": (
        "ARM id of the managed identity; required for type 0.",
        _text(
            f"/{_any_case('subscriptions')}/{_SEGMENT}/{_any_case('resourceGroups')}/{_SEGMENT}/"
            f"{_any_case('providers/Microsoft.ManagedIdentity/userAssignedIdentities')}/{_SEGMENT}"
        ),
    ),
    "clientID": ("Client id; required.", FORMS["guid"]),
    "tenantID": ("Tenant; required for types 1, 2 and 3.", FORMS["tenant"]),
    "clientPassword": (
        "The Secret, as {name, namespace} or as JSON of it; required for types 1 and 2.",
        {
            **_record("name", name=_FULL_NAME, namespace=_text(_DNS_LABEL)),
            "type": ["string", "object"],
            "pattern": "^\\s*[{][^{}]*name[^{}]*[}]\\s*$",
        },
    ),
    "auxiliaryTenantIDs": (
        "Further tenants.",
        {"type": ["array", "null"], "items": FORMS["tenant"]},
    ),
    "adEndpoint": ("Authority; the cloud's if left out.", _text("https://[A-Za-z0-9.:-]+/?")),
    "objectID": ("Object id, by which pods may ask, too.", FORMS["guid"]),
    "federation": (
        "For type 3: subject, audience and via.",
        _record(subject={"enum": ["pod", "identity"]}, audience=_TEXT, via=_TEXT),
    ),
    "binding": (
        "name, the identity's if left out, and selector, the value of the pods' label; required.",
        _record(
            "selector",
            name={**FORMS["name"], "description": "Name of the AzureIdentityBinding."},
            selector={
                **_text(_LABEL_VALUE, empty=False),
                "description": "Value of the pods' label aadpodidbinding.",
            },
        ),
    ),
}
"""The keys of an entry of azureIdentities: each with its sentence."""


def schema(values: list[Value]) -> Schema:
    """Return the JSON schema of the values: what is not in it is a mistake of its writer."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart podidentity",
        **_object(values),
        "definitions": {name: form for name, form in FORMS.items() if _has_parts(form)},
    }


def _has_parts(form: Schema) -> bool:
    return not form.keys().isdisjoint(("properties", "patternProperties", "items"))


def _reference(name: str) -> Schema:
    """Return a form, by its name if it is long: what stands beside a `$ref` would not count."""
    form = FORMS[name]
    return {"allOf": [{"$ref": f"#/definitions/{name}"}]} if _has_parts(form) else form


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
        return {**described, **_mapping(entry, _DNS_NAME)}
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
    # The types of the value win: a form may be of a text and of a number.
    return {**described, **(_reference(value.form) if value.form else {}), **form}


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
