"""Names for the sandboxes that tests bring up, so that several runs can go on at once."""

from __future__ import annotations

import os


def own(stem: str) -> str:
    """Return a sandbox's name that no other process of this machine uses; of 20 letters at most."""
    return f"{stem}-{os.getpid():x}"
