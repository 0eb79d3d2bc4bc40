"""One loaded base and adapters that are switched: each answers as its run did."""

import json
from dataclasses import replace
from unittest import mock

import pytest

from harness.config.schema import Template
from harness.errors import DataFault
from harness.models import base as model_base
from harness.pipeline import talk as pipeline_talk
from harness.pipeline.speakers import runs_on_base
from harness.pipeline.talk import Talk, readable
from tests.support.data_cases import CHATML
from tests.support.runs import loaded


@pytest.fixture(scope="module")
def runs(three_runs):
    return three_runs


@pytest.fixture(scope="module")
def speakers(runs):
    runs_dir, _, records = runs
    found = runs_on_base(runs_dir, records[0]["plan"]["model"], records[0]["plan"]["inputs"])
    return {speaker.key: speaker for speaker in found}


@pytest.fixture(scope="module")
def talk(random_qwen2):
    return Talk(loaded(random_qwen2))


def ask(talk, speaker, turns, model=None, **changes):
    told = []
    model = model or talk.tuned(speaker)
    settings = {"instruction": speaker.manner.instruction, "generation": speaker.manner.generation, "seed": 0}
    reply = talk.ask(model, speaker.manner, turns, told=told.append, **(settings | changes))
    assert reply.answer.text.startswith("".join(told))
    return reply


def test_each_adapter_and_the_base_answer_rows_as_the_run_did(runs, speakers, talk):
    runs_dir, _, records = runs
    answers = set()
    for record in (*records, records[0]):  # the first again, after others
        speaker = speakers[record["fingerprint"]]
        assert speaker.manner.instruction == "Colour?"
        rows = (runs_dir / record["fingerprint"] / record["predictions"]).read_text(encoding="utf-8").splitlines()
        for row in map(json.loads, rows):
            thing = row["prompt"].split("Input: ")[1].split("\n")[0]
            assert ask(talk, speaker, [thing]).answer.text == row["after"]
            assert ask(talk, speaker, [thing], talk.base.model).answer.text == row["before"]
            answers.add(row["after"])
    assert len(answers) > 1


def test_adapters_are_switched_without_loading_the_base_again(runs, speakers):
    weights = mock.Mock(side_effect=model_base.load_base)
    with mock.patch.object(pipeline_talk, "load_base", weights):
        first, *others = speakers.values()
        talk = Talk.begin(first, threads=1)
        before = model_base.fingerprint_weights(talk.base.model)
        for speaker in (*others, first):
            ask(talk, speaker, ["sky 1"])
    assert weights.call_count == 1
    assert model_base.fingerprint_weights(talk.base.model) == before


def test_the_adapter_that_was_asked_longest_ago_gives_way(speakers, random_qwen2):
    with mock.patch.object(pipeline_talk, "KEPT", 2):
        talk = Talk(loaded(random_qwen2))
        one, two, three = speakers.values()
        kept = talk.tuned(one)
        assert talk.tuned(two) is talk.tuned(two)
        assert talk.tuned(one) is kept
        talk.tuned(three)
        assert talk.tuned(one) is kept
        assert talk.tuned(two) is not None


def test_earlier_turns_change_the_prompt_and_the_oldest_give_way_to_room(speakers, talk):
    speaker = next(iter(speakers.values()))
    seen = []

    def stream(model, tokenizer, ids, *given, **options):
        seen.append(tokenizer.decode(ids))
        return real(model, tokenizer, ids, *given, **options)

    real = pipeline_talk.stream
    with mock.patch.object(pipeline_talk, "stream", stream):
        assert ask(talk, speaker, ["sky", "blue", "sea"]).forgotten == 0
        long = "x" * 200  # a token each; the model reads 512
        reply = ask(talk, speaker, [long, "a", long, "b", "sea", "c", "sky"])
    assert "User: sky\nAssistant: blue\nUser: sea" in seen[0]
    assert reply.forgotten == 2
    assert seen[1].count(long) == 1
    assert "User: sea\nAssistant: c\nUser: sky" in seen[1]


def test_a_message_that_the_model_cannot_read_is_refused(speakers, talk):
    for speaker in speakers.values():
        room = readable(talk.tuned(speaker), 8)
        assert room == 504 - (20 if speaker.record["method"] == "prompt_tuning" else 0)
        with pytest.raises(DataFault, match=f"reads at most {room} before an answer of"):
            ask(talk, speaker, ["x" * 600])


def test_the_turns_of_a_chat_template_are_its_own(speakers, random_qwen2):
    talk = Talk(loaded(random_qwen2))
    speaker = next(iter(speakers.values()))
    manner = replace(speaker.manner, template=Template.chat, as_system=True)
    with (
        mock.patch.object(talk.base.tokenizer, "chat_template", CHATML),
        mock.patch.object(pipeline_talk, "stream") as stream,
    ):
        talk.ask(
            talk.base.model, manner, ["a", "b", "c"], instruction="Be brief.",
            generation=manner.generation, seed=0, told=print,
        )  # fmt: skip
    asked = talk.base.tokenizer.decode(stream.call_args.args[2])
    assert asked.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na<|im_end|>")
    assert asked.endswith("<|im_start|>assistant\n")
