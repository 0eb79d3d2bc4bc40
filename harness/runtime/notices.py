"""Notices of libraries that nobody who runs a comparison can act on."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_libraries() -> None:
    """Keep such notices off the console. Call it in every process before PEFT is imported.

    PEFT imports bitsandbytes wherever that is installed, for a quantized base or not, and bitsandbytes logs at import
    which of its CPU kernels this processor could use if another package were there. Its errors are still shown.
    """
    warnings.simplefilter("ignore", FutureWarning)  # written for the developers of other packages
    if sys.stderr is None or not sys.stderr.isatty():  # a bar in a pipe or a file is one long line
        for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(name, "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Which arguments of ``generate`` will be renamed, and which flags a model's generation_config has for nothing.
    # Of an export, which precision the base's weights get.
    for name in ("generation.configuration_utils", "generation.utils", "integrations.bitsandbytes"):
        logging.getLogger(f"transformers.{name}").setLevel(logging.ERROR)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers' progress bars for local reading and writing off the console."""
    from transformers.utils import logging as transformers_logging

    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()
