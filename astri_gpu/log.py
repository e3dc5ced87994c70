"""What is printed besides results: our own warnings, and not the chatter of libraries."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet_libraries"]


@contextlib.contextmanager
def quiet_libraries(debug: bool) -> Iterator[None]:
    """Log our own warnings to stderr and keep the chatter of libraries out, unless debugging."""
    logger = logging.getLogger("astri_gpu")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("astri-gpu: %(levelname)s: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    logger.propagate = False
    jax_logger = logging.getLogger("jax")
    jax_level = jax_logger.level
    with warnings.catch_warnings():
        if not debug:
            jax_logger.setLevel(logging.ERROR)
            warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
            jax_logger.setLevel(jax_level)
