"""How long ago: `12s`, `5m3s`, `7d`, as the real server words it.

The steps are those of HumanDuration in
https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/duration/duration.go
"""

from __future__ import annotations

from datetime import datetime

from podidentity_sandbox.cluster.jsontypes import Json

UNKNOWN = "<unknown>"
_DAY = 24
_YEAR = 365 * _DAY
"""Hours."""


def since(stamp: Json, now: datetime) -> str:
    """Return the time from an RFC 3339 stamp to now, UNKNOWN where there is none."""
    if not isinstance(stamp, str):
        return UNKNOWN
    try:
        return lasting((now - datetime.fromisoformat(stamp)).total_seconds())
    except (ValueError, TypeError):
        return "<invalid>"


def lasting(seconds: float) -> str:
    """Return a duration in words, rounded down."""
    if int(seconds) < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 2 * 60:
        return f"{int(seconds)}s"
    minutes = int(seconds / 60)
    if minutes < 3 * 60:
        return _two(minutes, "m", int(seconds) % 60, "s") if minutes < 10 else f"{minutes}m"
    hours = int(seconds / 3600)
    if hours < 8 * _DAY:
        return _some_hours(hours, minutes)
    if hours < 2 * _YEAR:
        return f"{hours // _DAY}d"
    if hours < 8 * _YEAR:
        return _two(hours // _YEAR, "y", hours // _DAY % 365, "d")
    return f"{hours // _YEAR}y"


def _some_hours(hours: int, minutes: int) -> str:
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 2 * _DAY:
        return f"{hours}h"
    return _two(hours // _DAY, "d", hours % _DAY, "h")


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"
