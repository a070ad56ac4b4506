"""How long to rest after failures, the same for every program.

The supervisor loads it, so it imports nothing.
"""


def backoff(first: float, failures: int, longest: float) -> float:
    """Return the seconds to rest after so many failures in a row: twice as many after each.

    The exponent has a bound of its own: Python raises OverflowError for 2.0 ** 1024.
    """
    return min(first * 2.0 ** min(failures - 1, 30), longest)
