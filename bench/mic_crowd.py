"""How soon 200 pods that need an identity at once have it, and their tokens.

It is a part of `bench.mic`, alone.
"""

from __future__ import annotations

from bench.bars import show, wants_json
from bench.mic import crowds

if __name__ == "__main__":
    raise SystemExit(show(crowds(), as_json=wants_json()))
