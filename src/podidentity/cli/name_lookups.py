"""Names are looked up in threads that nobody waits for when a command ends.

A resolver that does not answer takes ten seconds and more, cannot be cancelled, and asyncio waits
for its threads at the end: so Ctrl-C would do nothing meanwhile, nor would a limit of time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class UnwaitedThreads(ThreadPoolExecutor):
    """The executor of a command's event loop; each call has a thread that ends with the process."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Call `fn` in a thread of its own, and return its answer to come."""
        answer: Future[_T] = Future()

        def call() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                found = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
                answer.set_exception(error)
            else:
                answer.set_result(found)

        threading.Thread(target=call, name="lookup", daemon=True).start()
        return answer
