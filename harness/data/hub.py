"""Data sets on the Hugging Face hub."""

import logging
from pathlib import Path
from typing import Any

from harness.data.formats import RawRow
from harness.errors import DataFault, first_line
from harness.runtime.hub import HubSilent, ask_hub

log = logging.getLogger(__name__)


def read_hub(path: str, split: str, subset: str | None, revision: str | None, cache: Path | None) -> list[RawRow]:
    """Rows of one split of a hub data set; ``cache``: folder for downloads, None: the user's own cache.

    Without a network, a data set that was downloaded before is read from the cache.

    Raises:
        DataFault: the data set cannot be read, for whatever reason the hub or its client gives.
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
            f"data.path={path}: there is no file or folder of this name, and reading split {split!r} from the hub"
            f" failed ({first_line(fault)}). Correct the path, or download the data set where there is a network"
            " and set data.path to the file"
        ) from fault


def _hub_answers(path: str, revision: str | None) -> bool:
    """Whether the hub responds to a question about this data set; "no such data set" is a response."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        ask_hub(lambda api, timeout: api.dataset_info(path, revision=revision, timeout=timeout))
    except HfHubHTTPError:
        return True
    except HubSilent as silence:
        log.debug("the hub did not answer: %s", silence)
        return False
    return True
