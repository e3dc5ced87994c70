"""Calls of Gammapy: it is there, it loads nothing from the network, its warnings are collected."""

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from astri_gpu.errors import AstriError

__all__ = ["check_gammapy", "collected", "versions"]

LIBRARIES = ("gammapy", "regions", "astropy", "numpy", "scipy", "iminuit")
LOGGERS = ("gammapy", "astropy")


def check_gammapy() -> None:
    """Raise a sentence where Gammapy is not installed or cannot be imported.

    Raises
    ------
    AstriError
        With what to install.
    """
    try:
        with collected(Counter()):
            import gammapy.datasets
            import gammapy.makers  # noqa: F401
    except ImportError as error:
        raise AstriError(
            f"The stage science needs Gammapy, which cannot be imported ({error}): install "
            "astri_gpu with its extra, 'astri_gpu[science]'."
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the results depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class _Collector(logging.Handler):
    def __init__(self, told: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told[f"{record.name.split('.')[0]}: {_one_line(record.getMessage())}"] += 1


@contextmanager
def collected(told: Counter[str]) -> Iterator[None]:
    """A context in which warnings and log messages of the libraries go into `told`, by text.

    Astropy's tables of the Earth's rotation are not looked for on the network either: what is
    shipped is good to far better than any angle here needs.
    """
    from astropy.utils import iers

    handler = _Collector(told)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        with (
            warnings.catch_warnings(record=True) as found,
            iers.conf.set_temp("auto_download", False),
        ):
            warnings.simplefilter("always")
            try:
                yield
            finally:
                for warning in found:
                    told[f"{warning.category.__name__}: {_one_line(str(warning.message))}"] += 1
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 300 else f"{words[:297]}..."
