"""How soon another controller writes when the leader is killed, or updated, with 20,000 pods.

It is a part of `bench.mic`, alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.bars import Bar, show, wants_json
from bench.mic import leaders, python, ran
from bench.stage.control_plane import ENTER


def measure() -> Iterator[Bar]:
    """Yield the bars."""
    yield from leaders(ran([*ENTER, *python("mic_processes", "change")]))


if __name__ == "__main__":
    raise SystemExit(show(measure(), as_json=wants_json()))
