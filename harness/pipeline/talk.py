"""A conversation with a base model and with adapters on it: one loaded base, adapters switched, answers streamed."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.config import schema
from harness.data.templates import render_conversation
from harness.data.tokenize import prompt_ids
from harness.errors import DataFault
from harness.models.base import Base, load_base
from harness.models.ends import end_ids
from harness.pipeline.speakers import Manner, Speaker
from harness.scoring.stream import Streamed, stream

if TYPE_CHECKING:
    from peft import PeftModel

KEPT = 4  # adapters on the base at a time; a method that writes to base weights has a copy of them


@dataclass(frozen=True)
class Reply:
    """One answer of a conversation."""

    answer: Streamed
    forgotten: int  # earliest turns that the model was not given, because it could not read them all


class Talk:
    """A base and the adapters that were asked last. Not for several threads at once."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._tuned: OrderedDict[tuple[str, str], PeftModel] = OrderedDict()

    @classmethod
    def begin(cls, speaker: Speaker, threads: int) -> "Talk":
        """Load the speaker's base, and put its adapter on it.

        Raises:
            ModelFault: the base or the adapter cannot be loaded.
        """
        torch.set_num_threads(threads)
        talk = cls(load_base(speaker.model))
        talk.tuned(speaker)
        return talk

    def tuned(self, speaker: Speaker) -> "PeftModel":
        """The speaker's adapter on the base; the one that was asked longest ago gives way."""
        key = (speaker.key, speaker.stamp)
        if key in self._tuned:
            self._tuned.move_to_end(key)
        else:
            while len(self._tuned) >= KEPT:
                self._tuned.popitem(last=False)
            self._tuned[key] = speaker.load(self.base)
        return self._tuned[key]

    def holds(self, speaker: Speaker) -> bool:
        """Whether its adapter is on the base already."""
        return (speaker.key, speaker.stamp) in self._tuned

    def ask(
        self,
        model: Any,
        manner: Manner,
        turns: Sequence[str],
        *,
        instruction: str,
        generation: schema.Generation,
        seed: int,
        told: Callable[[str], None],
        enough: Callable[[], bool] = lambda: False,
    ) -> Reply:
        """The model's answer to the last of ``turns``.

        Args:
            model: the base's or a tuned one.
            turns: by the user and the model in alternation; the first and the last are the user's.
            instruction: what stands before the conversation; "": nothing.
            seed: of sampled decoding.
            told: is told each new piece of the answer.
            enough: asked before each token; true ends the answer.

        Raises:
            DataFault: the last turn alone is longer than the model can read, or its chat template refuses it.
        """
        ids, forgotten = self._prompt(model, manner, turns, instruction, generation.max_new_tokens)
        if generation.do_sample:
            torch.manual_seed(seed)
        stops = manner.stops or end_ids(self.base.model, self.base.tokenizer)
        answer = stream(model, self.base.tokenizer, ids, generation, stops=stops, told=told, enough=enough)
        return Reply(answer, forgotten)

    def _prompt(
        self, model: Any, manner: Manner, turns: Sequence[str], instruction: str, longest_answer: int
    ) -> tuple[list[int], int]:
        """Token ids of the conversation, and how many of its first turns were left out to make room."""
        room = readable(model, longest_answer)
        for forgotten in range(0, len(turns), 2):
            text = render_conversation(
                instruction, turns[forgotten:], manner.template, self.base.tokenizer, as_system=manner.as_system
            )
            [ids] = prompt_ids([text], manner.template, self.base.tokenizer)
            if room is None or len(ids) <= room:
                return ids, forgotten
        raise DataFault(
            f"the message makes a prompt of {len(ids)} tokens, and this model reads at most {room} before an answer of "
            f"scoring.generation.max_new_tokens={longest_answer}; shorten it"
        )


def readable(model: Any, longest_answer: int) -> int | None:
    """How many tokens of a prompt the model can read before an answer of that length; None: it does not say."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not context:
        return None
    adapters = getattr(model, "peft_config", {})
    virtual = sum(int(getattr(each, "num_virtual_tokens", 0) or 0) for each in adapters.values())
    return int(context) - virtual - longest_answer
