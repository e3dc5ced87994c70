"""Errors of the package: each message is a sentence for the person who typed the command."""

import errno

__all__ = ["AstriError", "OutputBusy", "PartialFailure", "UsageError", "sentence"]


class AstriError(Exception):
    """The work cannot be done: what, where, with which value, and what to do. Exit code 1."""

    exit_code = 1


class UsageError(AstriError):
    """The request itself is wrong (an option, an existing output). Exit code 2."""

    exit_code = 2


class OutputBusy(UsageError):
    """Another run is writing the output at this moment. Exit code 2."""


class PartialFailure(AstriError):
    """Some units of work failed and the rest is done. Exit code 3."""

    exit_code = 3


def sentence(error: BaseException, debug: bool = False) -> str:
    """Return what to tell about an exception, in one line.

    Our own errors say it themselves; of the others the kinds that a user can do something about
    are put into words, and the rest is called unexpected.

    Parameters
    ----------
    error
        Any exception.
    debug
        Whether a traceback was printed; if not, the text says how to get one.
    """
    if isinstance(error, AstriError):
        return str(error)
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return (
            f"not enough memory{detail}: lower batch_size, images_per_chunk or execution.n_workers"
        )
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full{where}: free space or choose another output"
        return f"{error.strerror}{where}"
    hint = "" if debug else " (run again with debug=true for the traceback)"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}{hint}"
