"""Lays one configuration over an object, and takes fields out of one.

The order in which the items of two lists come together is that of
https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/typed/merge.go
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster.apply.fieldsets import EMPTY, FieldSet, below, field_step
from podidentity_sandbox.cluster.apply.typed import MISSING, child, granular, step_of
from podidentity_sandbox.cluster.jsontypes import Json
from podidentity_sandbox.cluster.schema import Schema


def merged(schema: Schema, live: Json, config: Json) -> Json:
    """Return `live` with what `config` says; neither is changed."""
    if config is MISSING:
        return live
    if live is MISSING or live is None or not granular(schema, config):
        return live if config is None and granular(schema, live) and live else config
    if isinstance(live, dict) and isinstance(config, dict):
        names = {**live, **config}
        return {
            name: merged(child(schema, name), live.get(name, MISSING), config.get(name, MISSING))
            for name in names
        }
    if isinstance(live, list) and isinstance(config, list):
        return _Lists(schema, live, config).merged()
    return config


class _Lists:
    """Two lists that come together: the applied order holds, what is only live stays about."""

    def __init__(self, schema: Schema, live: list[Any], config: list[Any]) -> None:
        self._schema = schema
        self._live = [(step_of(schema, item), item) for item in live]
        self._config = [(step_of(schema, item), item) for item in config]
        self._by_step: dict[str, Json] = {}
        for step, item in self._live:
            twice = step in self._by_step
            self._by_step[step] = None if twice else item

    def merged(self) -> list[Any]:
        applied = {step for step, _ in self._config}
        shared = [step for step, _ in self._config if step in self._by_step]
        found: list[Any] = []
        done: set[str] = set()
        left, right = 0, 0
        while left < len(self._live) or right < len(self._config):
            step, item = self._live[left] if left < len(self._live) else ("", None)
            wanted = self._config[right][0] if right < len(self._config) else ""
            if wanted and step != wanted and step in applied and shared and shared[0] != step:
                left += 1  # in both, but not its turn
                continue
            if step and step not in applied:
                found.append(item)
                left += 1
                continue
            if step and (step in done or step == wanted):
                left += 1
            if not wanted:
                continue
            found.append(self._together(*self._config[right]))
            done.add(wanted)
            shared = shared[1:] if shared[:1] == [wanted] else shared
            right += 1
        return found

    def _together(self, step: str, item: Json) -> Json:
        live = self._by_step.get(step, MISSING)
        return merged(self._schema.get("items", {}), live, item)


def without(schema: Schema, value: Json, fields: FieldSet) -> Json:
    """Return `value` without the fields of the set; null where nothing is left of it."""
    if not isinstance(value, dict | list) or not fields:
        return value
    if not granular(schema, value):
        return None
    tops, deeper = {path[0] for path in fields if len(path) == 1}, below(fields)
    if isinstance(value, dict):
        steps = ((name, field_step(name), item) for name, item in value.items())
        return {
            name: without(child(schema, name), item, deeper.get(step, EMPTY))
            for name, step, item in steps
            if step not in tops
        } or None
    inner = schema.get("items", {})
    placed = ((step_of(schema, item), item) for item in value)
    return [
        without(inner, item, deeper.get(step, EMPTY)) for step, item in placed if step not in tops
    ] or None
