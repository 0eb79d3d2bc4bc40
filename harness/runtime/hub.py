"""A question to the Hugging Face hub, given up after a few seconds."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from harness.errors import first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Answer = TypeVar("Answer")

TIMEOUT_S = 5.0  # a hub that takes longer counts as unreachable; its own client would retry for 23 s


class HubSilent(Exception):
    """The hub did not answer; the text says why."""


def ask_hub(question: Callable[["HfApi", float], Answer]) -> Answer:
    """What ``question`` returns when it is called with a client of the hub and its timeout in seconds.

    Raises:
        HfHubHTTPError: the hub refused, e.g. because it knows no such model: that is an answer too.
        HubSilent: there is no network, or the answer takes longer than ``TIMEOUT_S``.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    answers: list[Answer] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(question(HfApi(), TIMEOUT_S))
        except Exception as error:  # whatever a missing network raises
            errors.append(error)

    # In a thread: a name server that stays silent honors no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    if answers:
        return answers[0]
    if not errors:
        raise HubSilent(f"timed out after {TIMEOUT_S:g} s")
    if isinstance(errors[0], HfHubHTTPError):
        raise errors[0]
    raise HubSilent(first_line(errors[0])) from errors[0]
