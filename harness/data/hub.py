"""Data sets on the Hugging Face hub."""

import logging
import threading
from pathlib import Path
from typing import Any

from harness.data.formats import RawRow, brief
from harness.errors import DataFault

log = logging.getLogger(__name__)


HUB_SECONDS = 5.0  # how long the hub may take to say whether it knows a data set


def read_hub(path: str, split: str, subset: str | None, revision: str | None, cache: Path | None) -> list[RawRow]:
    """Records of one split of a hub data set; ``cache`` is where downloads are kept, None: the user's own.

    Without a network a data set that was downloaded before is read from there.
    """
    import datasets

    if not _hub_answers(path, revision):
        # The client would retry an absent network for 23 seconds, loudly; offline, it reads its cache at once.
        import huggingface_hub.constants

        datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    where: dict[str, Any] = {"name": subset, "revision": revision, "cache_dir": str(cache) if cache else None}
    try:
        return list(enumerate(datasets.load_dataset(path, split=split, **where), start=1))
    # Too many kinds to list: network, missing name, gated access, the builders' own.
    except Exception as fault:
        raise DataFault(
            f"data.path={path}: no file or folder of this name is here, and reading its split {split!r} from"
            f" the hub failed ({brief(fault)}). Correct the path, or download the data set where there is"
            " a network and set data.path to the file"
        ) from fault


def _hub_answers(path: str, revision: str | None) -> bool:
    """Whether the hub says anything of this data set within a few seconds; "no such data set" is an answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    answered = threading.Event()

    def ask() -> None:
        try:
            HfApi().dataset_info(path, revision=revision, timeout=HUB_SECONDS)
        except HfHubHTTPError:
            answered.set()
        except Exception as fault:  # whatever a missing network raises, here or below
            log.debug("no answer from the hub: %s", brief(fault))
        else:
            answered.set()

    # In a thread: a name server that stays silent honours no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return answered.is_set()
