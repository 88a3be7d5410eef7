"""What is kept of a failure of our own, so that it can be reported."""

from __future__ import annotations

import logging
import os
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["FailureLog", "recording"]

_LOGGER = "aevorium"
_MOST_LINES = 1000
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class FailureLog(logging.Handler):
    """Holds the errors that were logged, in case the command fails inside.

    A traceback may quote a patient's value, so nothing is written until then, and only its owner may read the file.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.setFormatter(logging.Formatter(_FORMAT))
        # A server lives long, and may log what it meets at every request.
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self._lines.append(self.format(record))

    def write(self, folder: Path, error: BaseException) -> Path | None:
        """Writes what was logged and the traceback of an error.

        Args:
            folder: Where to; made if absent.
            error: What ended the command.

        Returns:
            The file, or None if it cannot be written: the error itself is more important than its log.
        """
        now = datetime.now(UTC)
        lines = [f"{now.isoformat(timespec='seconds')}", *self._lines, *traceback.format_exception(error)]
        path = folder / f"failure-{now:%Y%m%d-%H%M%S-%f}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        except OSError:
            return None
        return path


@contextmanager
def recording(*, show: bool) -> Iterator[FailureLog]:
    """Keeps Aevorium's log for the length of a command, away from the console.

    Args:
        show: Also shows it, on the standard error stream.
    """
    logger = logging.getLogger(_LOGGER)
    kept = FailureLog()
    handlers: list[logging.Handler] = [kept]
    if show:
        shown = logging.StreamHandler()
        shown.setFormatter(logging.Formatter(_FORMAT))
        handlers.append(shown)
    level, propagate = logger.level, logger.propagate
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO if show else logging.ERROR)
    logger.propagate = False
    try:
        yield kept
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
