"""Torch, transformers and PEFT: imported where a run needs them, once, and quickly."""

import functools
import gc
import importlib


@functools.cache
def load() -> None:
    """Import all that a training imports, without collecting garbage in between.

    These imports make 900,000 objects, nearly all for good. Python would walk over them again and again in search of
    garbage, which is a quarter of the time. What they have made is then left out of later searches
    (``gc.freeze``): a walk over it is 0.5 s, and the garbage among it 15 MB.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        for name in ("harness.pipeline.steps", "harness.pipeline.tune"):
            importlib.import_module(name)
    finally:
        if collected:
            gc.enable()
    gc.freeze()
