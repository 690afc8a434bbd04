"""SIGTERM as Ctrl-C: what was reached is still written and shown."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType


def sigterm_as_ctrl_c() -> Callable[[], None]:
    """From here on SIGTERM raises KeyboardInterrupt, once; returns what puts things back.

    Later ones are ignored: a process group gets the signal several times, and what ends is ending.
    Nothing is changed where somebody else handles the signal, and outside of the main thread.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return lambda: None

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt("SIGTERM")

    def restore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, stop)
    return restore
