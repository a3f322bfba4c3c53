"""Every error that unfool raises on purpose, and the exit code that the command line gives it.

A message says in one line what was given, what is allowed and what to do.
"""

from __future__ import annotations

LONGEST_MESSAGE = 2000
"""Characters of a message; of a longer one, which repeats a long value, the middle is left out."""


def bounded(message: str) -> str:
    """A message of at most LONGEST_MESSAGE characters, with its beginning and its end."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    end = LONGEST_MESSAGE // 4
    return f"{message[: LONGEST_MESSAGE - end - 40]} […{len(message):,} characters…] {message[-end:]}"


class UnfoolError(Exception):
    """Base of all errors of this library; its message says what was given, what is allowed and what to do.

    ``exit_code`` is what the command line returns. A message is one line of at most LONGEST_MESSAGE.

    Example:
        >>> try:
        ...     open_table("digit", "test")
        ... except UnfoolError as error:
        ...     print(str(error)[:48], error.exit_code)
        unknown data set 'digit'; did you mean 'digits'? 2
    """

    exit_code = 1

    def __init__(self, message: object = ""):
        super().__init__(bounded(" ".join(str(message).splitlines())))


class SpecError(UnfoolError, ValueError):
    """A name, key, number or threat model that is not understood (exit code 2)."""

    exit_code = 2


class DataError(UnfoolError):
    """A data set that is missing, unreadable, corrupt or too small, or has no labels (exit code 3)."""

    exit_code = 3


class ImagesError(UnfoolError, ValueError):
    """Images or labels that break the contract: float NCHW in [0,1], finite, not empty (exit code 4)."""

    exit_code = 4


class WeightsError(UnfoolError):
    """A weights file that is malformed, unsafe, of another architecture, or holds NaN (exit code 5)."""

    exit_code = 5


class OutputError(UnfoolError):
    """A folder or file that cannot be written, is in use, or belongs to another configuration (exit code 6)."""

    exit_code = 6


class NonFiniteError(UnfoolError):
    """A loss or gradient that is NaN or infinite, caught before it touches the weights (exit code 7)."""

    exit_code = 7


class DeviceError(UnfoolError):
    """A device or precision that this machine does not offer (exit code 8)."""

    exit_code = 8


class ReliabilityError(UnfoolError):
    """An accuracy that is not to be believed, in a strict evaluation (exit code 9)."""

    exit_code = 9


class ClaimError(UnfoolError):
    """A claim about robust accuracy, or a model card, that has been shown to be wrong (exit code 10)."""

    exit_code = 10


class UnsettledClaimError(ClaimError):
    """A claim about robust accuracy, or a model card, that the images could not settle (exit code 11)."""

    exit_code = 11


class WorkerError(UnfoolError):
    """Work that other processes did not finish: one that died, or a cluster that is out of reach (exit code 12)."""

    exit_code = 12


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells expect it."""


class UnfoolWarning(UserWarning):
    """Something the user should know that does not stop the work.

    Example:
        >>> import warnings
        >>> warnings.filterwarnings("error", category=UnfoolWarning)  # to stop at the first one
    """
