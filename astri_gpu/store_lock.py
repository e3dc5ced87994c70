"""One run per output: the folder ``<output>.partial`` is locked as long as its run lives.

The lock belongs to the process (flock), so a killed run loses it at once. Some network file
systems lock no folders: there the file ``<output>.lock`` is locked instead, and where even that
fails a warning is all that can be done.
"""

import errno
import fcntl
import logging
import os
import shutil
import time
from pathlib import Path

from astri_gpu.errors import OutputBusy

__all__ = ["OutputLock"]

logger = logging.getLogger(__name__)

# What flock answers where there are no locks on folders (NFS says EBADF), or none at all.
NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
ATTEMPTS = 16  # at a lock whose holder ends at that very moment
CLEARINGS, WAIT_S = 6, 0.02  # of a folder that is written while it is removed


class OutputLock:
    """The right to make one output, and its folder `partial`.

    Parameters
    ----------
    output
        What will be made.

    Attributes
    ----------
    partial
        The locked folder, ``<output>.partial``.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.partial = output.with_name(output.name + ".partial")
        self._file = output.with_name(output.name + ".lock")
        self._folder = -1  # descriptors
        self._lock = -1

    def acquire(self) -> None:
        """Make the folder if it is missing, lock it, and clear it of what a killed run left.

        Raises
        ------
        OutputBusy
            When another run has the lock.
        OSError
            When the folder cannot be made.
        """
        for _ in range(ATTEMPTS):
            self.partial.mkdir(exist_ok=True)
            try:
                self._folder = os.open(self.partial, os.O_RDONLY | os.O_DIRECTORY)
                self._flock()
                if self._is_ours(self.partial, self._folder):
                    self._clear()
                    return
            except FileNotFoundError:
                pass  # renamed between two of these lines: its run has just ended
            except BaseException:
                self._close()
                raise
            self._close()
        raise self._busy()

    def holds(self) -> bool:
        """Return whether `partial` is still the folder that was locked."""
        return self._folder >= 0 and self._is_ours(self.partial, self._folder)

    def release(self) -> None:
        """Remove the folder if it is still there under its name, and give the lock back."""
        if self._folder < 0:
            return
        for attempt in range(CLEARINGS):
            time.sleep(WAIT_S * attempt)
            if self.holds():
                shutil.rmtree(self.partial, ignore_errors=True)
            else:
                self._clear_stray()
            # A write of ours that was on its way makes its folders again.
            if not self.partial.exists():
                break
        self._close()

    def _flock(self) -> None:
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy() from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            self._flock_file()

    def _flock_file(self) -> None:
        while True:
            self._lock = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                self._lock = -1
                raise self._busy() from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                logger.warning(
                    "The file system of %s has no locks: two runs that write it at the same time "
                    "would not notice each other",
                    self.output,
                )
                return
            if self._is_ours(self._file, self._lock):
                return
            os.close(self._lock)  # removed by the run before us: a lock on nothing

    def _clear(self) -> None:
        entries = list(os.scandir(self.partial))
        if entries:
            logger.warning("Removing %s, left by a run that was killed", self.partial)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    def _clear_stray(self) -> None:
        """Remove a folder of this name that our own writing made again after ours had gone."""
        try:
            stray = os.open(self.partial, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        try:
            fcntl.flock(stray, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.partial, ignore_errors=True)
        except OSError:
            pass  # another run's, or no way to tell
        finally:
            os.close(stray)

    def _close(self) -> None:
        if self._lock >= 0:
            if self._is_ours(self._file, self._lock):
                self._file.unlink(missing_ok=True)
            os.close(self._lock)
        if self._folder >= 0:
            os.close(self._folder)
        self._lock = self._folder = -1

    @staticmethod
    def _is_ours(path: Path, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(path), os.fstat(descriptor))
        except OSError:
            return False

    def _busy(self) -> OutputBusy:
        return OutputBusy(
            f"Another run is writing {self.output} at this moment: wait for it or choose another "
            "output."
        )
