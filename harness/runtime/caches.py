"""Where what can be made again is kept between commands."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$PEFT_HARNESS_CACHE``, by default ``~/.cache/peft-harness``; created when first written to."""
    return Path(os.environ.get("PEFT_HARNESS_CACHE") or Path.home() / ".cache" / "peft-harness").expanduser()
