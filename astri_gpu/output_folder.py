"""A folder of files that appears under its name only when all of them are complete."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.store_disk import disk_errors, sync, sync_tree
from astri_gpu.store_lock import OutputLock

__all__ = ["whole_folder"]


@contextmanager
def whole_folder(
    path: str | Path, is_ours: Callable[[str], bool], *, overwrite: bool = False
) -> Iterator[Path]:
    """Give a folder to fill, which becomes `path` at the end.

    Parameters
    ----------
    path
        Where the finished folder will be.
    is_ours
        Whether a file of this name may be replaced; a folder with any other is left alone.
    overwrite
        Replace a folder that is there already (at the very end).

    Raises
    ------
    UsageError
        When `path` exists and may not be replaced.
    OutputBusy
        When another run is writing it.
    AstriError
        When the place cannot be written, or the disk takes no more.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"The output {path} is a file, not a folder: choose another output.")
    taken = path.exists() and any(path.iterdir())
    if taken and not overwrite:
        raise UsageError(
            f"The output {path} exists already: choose another output or set overwrite=true."
        )
    if taken and not all(is_ours(entry.name) for entry in path.iterdir()):
        raise UsageError(
            f"The output {path} holds other files too, so overwrite=true will not replace it: "
            "choose another output."
        )
    lock = OutputLock(path)
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            yield lock.partial
            sync_tree(lock.partial)
            replaced = path.with_name(path.name + ".replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            if path.exists():
                path.rename(replaced)
            lock.partial.rename(path)
            sync(path.parent)
            shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise AstriError(
            f"The output {path} cannot be written ({error.strerror or error}): choose another "
            "place or change its permissions."
        ) from error
    finally:
        lock.release()
