"""Data sets on the Hugging Face hub."""

import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from harness.data.formats import RawRow
from harness.errors import DataFault, first_line
from harness.runtime.hub import HubSilent, ask_hub

log = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")


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
        _refuse_other_copy(path, revision)
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


@cache
def commit_of(path: str, revision: str | None) -> str | None:
    """The commit of a hub data set: the hub's, or else that of the copy that reading without a network would take.

    None if neither is to be had. Asked once per process, so that all runs of a sweep read the same rows.
    """
    from huggingface_hub.errors import HfHubHTTPError

    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    try:
        return ask_hub(lambda api, timeout: api.dataset_info(path, revision=revision, timeout=timeout)).sha
    except (HfHubHTTPError, HubSilent):
        return _cached_commit(path)


def _cached_commit(path: str) -> str | None:
    """The newest prepared copy in the cache of ``datasets``, whose folders are named after commits."""
    root = os.environ.get("HF_DATASETS_CACHE")
    if not root:
        home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
        root = str(Path(home) / "datasets")
    *owner, name = path.split("/")
    snake = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)).lower()
    copies = Path(root).expanduser().glob(f"{'___'.join([*owner, snake])}/*/*/*")
    found = [copy for copy in copies if copy.is_dir() and COMMIT.fullmatch(copy.name)]
    return max(found, key=lambda copy: copy.stat().st_mtime).name if found else None


def _refuse_other_copy(path: str, revision: str | None) -> None:
    """Raise DataFault if the copy in the cache is of another commit: without a network ``datasets`` takes any."""
    cached = _cached_commit(path)
    if revision is not None and COMMIT.fullmatch(revision) and cached is not None and cached != revision:
        raise DataFault(
            f"data.path={path}: data.revision={revision} is not on this machine (it has {cached}), and the hub "
            f"does not answer; connect once, or set data.revision={cached}"
        )


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
