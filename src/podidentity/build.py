"""Which release this is, of which commit, from which build.

The recipe of the image writes the commit and the build beside the package. Where it did not, as in
a checkout, both are unknown: nothing is guessed from what lies around.
"""

from __future__ import annotations

import json
from pathlib import Path

from podidentity import __version__

RECORD = Path(__file__).with_name("build.json")
"""{"commit": …, "build": …}"""
UNKNOWN = "unknown"


def build() -> dict[str, str]:
    made = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    return {
        "version": __version__,
        "commit": made.get("commit", UNKNOWN),
        "build": made.get("build", UNKNOWN),
    }
