"""One process at a time at a piece of work: the others wait, and a killed holder releases it."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from astri_gpu.errors import AstriError

__all__ = ["held"]

logger = logging.getLogger(__name__)

# What flock answers on file systems that have no locks.
NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A context in which this process alone holds the lock file `path`, as long as it lives.

    Unlike `astri_gpu.store_lock`, which refuses a second run, it waits. The file is removed at the
    end. Where the file system has no locks a warning says so, and nothing is held.

    Parameters
    ----------
    path
        Lock file; its folder is made.

    Raises
    ------
    AstriError
        When the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    except OSError as error:
        raise AstriError(
            f"The lock {path} cannot be made ({error.strerror or error}): choose a folder that can "
            "be written."
        ) from error
    try:
        yield
    finally:
        # Removed while held: whoever waits finds a file without a name and tries again.
        if _is_named(path, descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """Return the descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            logger.warning(
                "The file system of %s has no locks: two jobs may do the same work twice", path
            )
            return descriptor
        if _is_named(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_named(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False
