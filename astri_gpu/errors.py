"""Errors of the package: each message is a sentence for the person who typed the command."""

__all__ = ["AstriError", "PartialFailure", "UsageError"]


class AstriError(Exception):
    """The work cannot be done: what, where, with which value, and what to do. Exit code 1."""

    exit_code = 1


class UsageError(AstriError):
    """The request itself is wrong (an option, an existing output). Exit code 2."""

    exit_code = 2


class PartialFailure(AstriError):
    """Some units of work failed and the rest is done. Exit code 3."""

    exit_code = 3
