"""Errors that a user can act on.

The text of each is complete: it names the key or file, the value, and the remedy. The entrypoint prints
it without a traceback.
"""

from collections.abc import Sequence


class HarnessError(Exception):
    """Something the user can mend."""


class ConfigFault(HarnessError):
    """A setting, or a combination of settings, that cannot work."""


class DataFault(HarnessError):
    """Rows that cannot be used, or a data set that cannot be read."""


class ModelFault(HarnessError):
    """A base model that cannot be had or does not fit the method."""


class RunFault(HarnessError):
    """A run that could not go on: non-finite loss, no memory, no disk."""


class Elsewhere(RunFault):
    """Another process works on the same plan, or took it over; what it leaves is the result."""


class Parted(BaseException):
    """One of several processes failed alone, by its cause: no further run of the command can be shared."""


def raise_together(faults: Sequence[str], kind: type[HarnessError] = ConfigFault) -> None:
    """Raise one error that lists every fault; return when there is none."""
    if faults:
        raise kind("\n".join(faults))
