"""The embedded questions and base model are what their README files promise."""

import importlib
import itertools
import json
import random
import sys
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

DATA = ROOT / "data"
SPLITS = ("train", "validation", "test")
FIELDS = {"instruction", "input", "output", "medicine"}


def source(name: str) -> dict[str, Any]:
    return yaml.safe_load((DATA / "medicine" / f"{name}.yaml").read_text(encoding="utf-8"))


def rows(split: str) -> list[dict[str, str]]:
    text = (DATA / "medicine" / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def wordings(*splits: str) -> set[str]:
    lexicon = source("lexicon")
    return {words for concept in lexicon.values() for split in splits for words in concept[split]}


def pieces(split: str) -> set[str]:
    """The phrases that a split's sentence templates put before and after the complaints."""
    frames = source("frames")[split]
    opens = {text for texts in frames["open"].values() for text in texts}
    return {text.strip("，。？") for text in opens | set(frames["close"])} - {""}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of scripts/embedded as running it would."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "embedded"))
    yield importlib.import_module
    for name in ("make_data", "tiny_corpus"):
        sys.modules.pop(name, None)


def test_files_match_their_sources(script):
    for path, text in script("make_data").rendered().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale; run scripts/embedded/make_data.py"


def test_pairs_of_answers_are_about_the_same_questions_and_reject_another_medicine():
    for split, count in (("train", 144), ("validation", 72), ("test", 72)):
        text = (DATA / "medicine_preference" / f"{split}.jsonl").read_text(encoding="utf-8")
        pairs = [json.loads(line) for line in text.splitlines()]
        answers = {row["input"]: row for row in rows(split)}
        assert len(pairs) == count
        for pair in pairs:
            own = answers[pair["input"]]
            assert (pair["chosen"], pair["medicine"]) == (own["output"], own["medicine"])
            assert pair["rejected"] != pair["chosen"]
            assert own["medicine"] not in pair["rejected"]


def test_sizes_and_fields():
    counts = {split: len(rows(split)) for split in SPLITS}
    assert sum(counts.values()) >= 900
    assert len(source("medicines")) >= 64
    for row in itertools.chain.from_iterable(rows(split) for split in SPLITS):
        assert set(row) == FIELDS
        assert all(row.values())
        assert row["output"].startswith(f"推荐使用{row['medicine']}，")


def test_every_split_asks_about_every_medicine():
    for split in SPLITS:
        assert {row["medicine"] for row in rows(split)} == set(source("medicines")), split


def test_no_question_occurs_twice():
    seen = [row["input"] for split in SPLITS for row in rows(split)]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("unseen", ["validation", "test"])
def test_unseen_wordings_never_occur_in_training(unseen):
    trained = "\n".join(row["instruction"] + row["input"] + row["output"] for row in rows("train"))
    assert [words for words in wordings(unseen) if words in trained] == []


def test_training_wordings_never_occur_in_a_test_wording():
    known = wordings("train", "validation")
    assert [(old, new) for new in wordings("test") for old in known if old in new] == []


@pytest.mark.parametrize("unseen", ["validation", "test"])
def test_sentence_frames_are_disjoint(unseen):
    trained = "\n".join(row["input"] for row in rows("train"))
    assert [text for text in pieces(unseen) if text in trained] == []


def test_every_test_row_is_made_of_test_wordings():
    known = wordings("test")
    for row in rows("test"):
        assert sum(words in row["input"] for words in known) >= 2, row["input"]


def test_every_complaint_identifies_its_medicine():
    lexicon, medicines = source("lexicon"), source("medicines")
    for split in SPLITS:
        for row in rows(split):
            uses = medicines[row["medicine"]]["uses"]
            named = {use for use in uses if any(words in row["input"] for words in lexicon[use][split])}
            matching = [name for name, entry in medicines.items() if named <= set(entry["uses"])]
            assert matching == [row["medicine"]], row["input"]


def test_medicine_that_shares_all_uses_with_another_is_refused(script):
    medicines = {"甲": {"uses": ["a", "b"]}, "乙": {"uses": ["a", "b", "c"]}}
    with pytest.raises(ValueError, match="甲 shares its uses"):
        script("make_data").identifying("甲", medicines)


def test_no_pretraining_passage_ties_a_medicine_to_a_complaint_or_use(script):
    corpus = script("tiny_corpus")
    medicines, lexicon = source("medicines"), source("lexicon")
    terms = set(corpus.read("tiny_corpus/words.yaml")["terms"])
    functions = {entry["function"] for entry in medicines.values()}
    english = {concept["en"] for concept in lexicon.values()}
    said = wordings(*SPLITS) | set(lexicon) | terms | functions | english
    drawn = ("".join(passage) for passage in itertools.islice(corpus.stream(seed=12), 20_000))
    passages = itertools.chain(drawn, corpus.heldout())
    named = 0
    for passage in passages:
        if any(name in passage for name in medicines):
            named += 1
            # The name itself may contain such a word (止痒 in 消风止痒颗粒); the text around it may not.
            for name in sorted(medicines, key=len, reverse=True):
                passage = passage.replace(name, "")
            assert [words for words in said if words in passage] == [], passage
    assert named > 200  # the stream did name medicines


def test_hand_written_passages_name_no_medicine():
    for path in (DATA / "tiny_corpus").iterdir():
        text = path.read_text(encoding="utf-8")
        assert [name for name in source("medicines") if name in text] == [], path.name


def test_heldout_text_is_excluded_from_pretraining(script):
    corpus = script("tiny_corpus")
    stored = (DATA / "general" / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in stored]
    assert texts == corpus.heldout()
    assert 100 <= len(texts) <= 200
    assert any(text.isascii() for text in texts)
    assert not set(texts) & {"".join(passage) for passage in itertools.islice(corpus.stream(seed=12), 20_000)}
    assert not set(texts) & set(corpus.lines("tiny_corpus/passages.txt"))


def test_tiny_is_small_and_loads_from_its_folder():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny = DATA / "tiny"
    assert sum(path.stat().st_size for path in tiny.iterdir()) <= 8_000_000
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32")
    assert model.config.model_type == "qwen2"
    assert model.config.tie_word_embeddings
    assert model.model.layers[0].self_attn.q_proj.bias is not None
    assert 1e6 <= model.num_parameters() <= 4e6
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert tokenizer.eos_token_id is not None
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_tokenizer_round_trips_any_text_and_has_the_chat_format():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny")
    for text in ["推荐使用六味地黄丸，滋阴补肾。", "naïve 🙂 £5\n\ttabs", *(row["input"] for row in rows("test"))]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    chat = [{"role": "user", "content": "你好"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer("<|im_start|>")["input_ids"] == [tokenizer.convert_tokens_to_ids("<|im_start|>")]


def test_training_rows_are_short():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny")
    template = "Instruction: {instruction}\nInput: {input}\nAnswer: {output}"
    lengths = [len(tokenizer(template.format(**row))["input_ids"]) for row in rows("train")]
    assert sum(lengths) / len(lengths) < 70
    assert max(lengths) <= 128


def test_dealing_uses_every_item_before_any_repeats(script):
    turns = script("make_data").Turns(random.Random(0))
    dealt = [turns.deal("key", ["a", "b", "c"]) for _ in range(6)]
    assert sorted(dealt[:3]) == sorted(dealt[3:]) == ["a", "b", "c"]
