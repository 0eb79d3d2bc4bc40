"""Scores against published values, hand-made cases and properties; loading as anyone would load it."""

import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.catalog import DESCRIPTIONS, compute_metrics, load_metric, metric_folder
from harness.scoring.text import (
    TOKENIZERS,
    _jieba,
    first_named,
    lcs_length,
    name_index,
    normalize,
    rouge_l,
    token_f1,
    tokenize_text,
)
from tests.support.paths import ROOT

ALL = list(DESCRIPTIONS)
# Scripts, punctuation, spaces and emoji that meet in one answer more often than random Unicode would have it.
ANSWERS = st.text(st.sampled_from("小柴胡颗粒一日3次。，、0.5gabcDE the-an \n\t😀👍🏽é①％"), max_size=40) | st.text(
    max_size=20
)
WORDY = ANSWERS.filter(lambda text: len(tokenize_text(text, "mixed")) > 0)


# ---------------------------------------------------------------- published values


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [  # rouge_score 0.1.2, RougeScorer(["rougeL"]), no stemming
        ("the cat sat on the mat", "the cat was sitting on the mat", 0.7692307692307692),
        ("police kill the gunman", "police killed the gunman", 0.75),  # Lin 2004, section 3.1, S1 and S2
        ("the gunman kill police", "police killed the gunman", 0.5),  # S1 and S3
        (
            "Don't panic: it's only 3.5 mg, twice-daily!",
            "Do not panic; it is only 3.5mg twice daily.",
            0.5714285714,
        ),
        ("A b c", "x y z", 0.0),
        (
            "A quick brown fox jumps over the lazy dog near the river bank",
            "The quick red fox jumped over a lazy dog by the bank of the river",
            0.5,
        ),
    ],
)
def test_rouge_l_equals_rouge_score_on_english(prediction: str, reference: str, expected: float) -> None:
    assert rouge_l(prediction, [reference], "rouge") == pytest.approx(expected)


def test_rouge_l_takes_the_best_reference_as_rouge_score_does() -> None:
    references = ["the cat", "a dog sat on the mat today"]
    assert rouge_l("the cat sat on the mat", references, "rouge") == pytest.approx(0.6153846153846153)


def test_bleu_and_chrf_equal_the_values_in_sacrebleus_readme() -> None:
    predictions = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    values, signatures = compute_metrics(["bleu", "chrf"], predictions, references, None, "13a")
    assert round(values["bleu"], 2) == 48.53
    assert round(values["chrf"], 2) == 59.73
    assert signatures["bleu"].startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),  # articles, case and punctuation do not count
        ("in the year 1999", "1999", 0.5),  # precision 1/3, recall 1
        ("a cat a cat", "cat", 2 / 3),  # a bag: the second cat is surplus
        ("state-of-the-art", "state of the art", 0.0),  # SQuAD deletes the hyphens: one word
    ],
)
def test_token_f1_follows_the_squad_script(prediction: str, reference: str, expected: float) -> None:
    assert token_f1(prediction, [reference], "squad") == pytest.approx(expected)


# ---------------------------------------------------------------- definitions


def test_mixed_tokens_are_characters_in_chinese_and_words_elsewhere() -> None:
    text = "服用0.5g 小柴胡颗粒，Ｔｗｉｃｅ/天。हिन्दी 😀1,000"
    expected = ["服", "用", "0.5g", "小", "柴", "胡", "颗", "粒", "twice", "天", "हिन्दी", "😀", "1,000"]
    assert tokenize_text(text, "mixed") == expected


def test_doses_with_the_same_digits_differ() -> None:
    assert token_f1("0.5", ["5.0"], "mixed") == 0


def test_jieba_tokens_are_words() -> None:
    assert tokenize_text("我来到北京清华大学。T恤", "jieba") == ["我", "来到", "北京", "清华大学", "t恤"]


def test_user_dictionary_of_the_process_does_not_move_tokens() -> None:
    import jieba

    before = tokenize_text("来到北京清华大学", "jieba")
    try:
        jieba.add_word("北京清华大学", freq=10**9)
        assert tokenize_text("来到北京清华大学", "jieba") == before
    finally:
        jieba.del_word("北京清华大学")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("ＡＢＣ１２３。", "ABC123"),
        ("  a \n\t b ", "a b"),
        ("小柴胡 颗粒 Ab", "小柴胡颗粒Ab"),
        ("yes.!?", "yes"),
        ("?!", "?!"),
        ("5%", "5%"),
        ("f(x)", "f(x)"),
        (" \n", ""),
    ],
)
def test_normalised_answers(text: str, normal: str) -> None:
    assert normalize(text) == normal


def test_normalisation_names_an_unknown_step() -> None:
    with pytest.raises(ValueError, match=r"no step 'lower'; join nfkc, space, final, case"):
        normalize("a", "nfkc+lower")
    assert normalize(" Ａ。", "none") == " Ａ。"


@pytest.mark.parametrize(
    ("text", "names", "named"),
    [
        ("建议用小柴胡颗粒", ["柴胡颗粒", "小柴胡颗粒"], "小柴胡颗粒"),
        ("建议用柴胡颗粒", ["柴胡颗粒", "小柴胡颗粒"], "柴胡颗粒"),
        ("先用板蓝根，再用柴胡颗粒", ["柴胡颗粒", "板蓝根"], "板蓝根"),
        ("六味地黄丸", ["六味", "六味地黄丸", "地黄丸"], "六味地黄丸"),
        ("小柴胡 颗粒", ["小柴胡颗粒"], "小柴胡颗粒"),
        ("environment, then Iron.", ["iron"], "iron"),
        ("environment", ["iron"], None),
        ("补充维生素C片", ["维生素C"], "维生素c"),
        ("维生素C6", ["维生素C"], None),
        ("aspirin plus", ["aspirin", "aspirin plus"], "aspirin plus"),
        ("a.b", ["a.b"], "a.b"),
        ("axb", ["a.b"], None),
        ("", ["x"], None),
        ("x", ["", "  "], None),
    ],
)
def test_first_named_is_leftmost_then_longest(text: str, names: list[str], named: str | None) -> None:
    assert first_named(text, name_index(names)) == named


def test_names_target_counts_only_the_first_candidate() -> None:
    predictions = ["小柴胡颗粒。", "小柴胡颗粒", "板蓝根和柴胡颗粒", "多喝水"]
    targets = ["小柴胡颗粒", "柴胡颗粒", "柴胡颗粒", "板蓝根"]
    values, signatures = compute_metrics(["names_target"], predictions, [["x"]] * 4, targets, "zh")
    assert values == {"names_target": 25.0}
    assert signatures["names_target"].startswith("names:3|")


def test_more_candidates_hide_a_shorter_name() -> None:
    one = {"predictions": ["小柴胡颗粒"], "references": ["柴胡颗粒"]}
    assert load_metric("names_target").compute(**one)["names_target"] == 100
    assert load_metric("names_target").compute(**one, candidates=["小柴胡颗粒"])["names_target"] == 0


def test_texts_without_a_token_agree_only_if_equal() -> None:
    assert token_f1("……", ["……"], "mixed") == 1
    assert token_f1("？", ["！"], "mixed") == 0
    assert rouge_l("感冒", ["发热"], "rouge") == 0


def test_jieba_bleu_names_its_tokeniser() -> None:
    text = "我来到北京清华大学，学习中医药学。"
    values, signatures = compute_metrics(["bleu"], [text], [[text]], None, "jieba")
    assert values["bleu"] == pytest.approx(100)
    assert "|tok:jieba-0." in signatures["bleu"]


# ---------------------------------------------------------------- properties


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=3)), min_size=1, max_size=4))
@pytest.mark.parametrize("tokenize", ["zh", "char", "jieba"])
def test_every_score_lies_in_0_to_100(tokenize: str, rows: list[tuple[str, list[str]]]) -> None:
    predictions, references = [row[0] for row in rows], [row[1] for row in rows]
    values, signatures = compute_metrics(ALL, predictions, references, ["颗粒"] * len(rows), tokenize)
    assert list(values) == list(signatures) == ALL
    assert all(0 <= value <= 100 for value in values.values())


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(WORDY, min_size=1, max_size=4), tokenize=st.sampled_from(["zh", "char", "jieba"]))
def test_identical_text_scores_100(answers: list[str], tokenize: str) -> None:
    names = ["exact_match", "token_f1", "rouge_l", "chrf"]
    values, _ = compute_metrics(names, answers, [[answer] for answer in answers], None, tokenize)
    assert values == dict.fromkeys(names, pytest.approx(100))


@settings(max_examples=30, deadline=None)
@given(answer=st.text("小柴胡颗粒日次", min_size=4, max_size=20))
def test_identical_text_of_four_tokens_has_bleu_100(answer: str) -> None:
    assert compute_metrics(["bleu"], [answer], [[answer]], None, "zh")[0]["bleu"] == pytest.approx(100)


def test_bleu_of_right_answers_without_a_4gram_is_0_as_published() -> None:
    assert compute_metrics(["bleu"], ["板蓝根"], [["板蓝根"]], None, "zh")[0]["bleu"] == 0


@given(left=ANSWERS, right=ANSWERS, how=st.sampled_from(["mixed", "squad", "rouge", "char"]))
def test_f1_scores_are_symmetric(left: str, right: str, how: str) -> None:
    assert token_f1(left, [right], how) == token_f1(right, [left], how)
    assert rouge_l(left, [right], how) == rouge_l(right, [left], how)
    assert rouge_l(left, [right], how) <= token_f1(left, [right], how)


@given(left=st.lists(st.sampled_from("abc"), max_size=70), right=st.lists(st.sampled_from("abc"), max_size=70))
def test_bit_parallel_lcs_equals_the_table(left: list[str], right: list[str]) -> None:
    row = [0] * (len(right) + 1)
    for token in left:
        above = row
        row = [0]
        for column, other in enumerate(right):
            row.append(above[column] + 1 if token == other else max(above[column + 1], row[-1]))
    assert lcs_length(left, right) == row[-1]


@given(text=ANSWERS, how=st.sampled_from(list(TOKENIZERS)))
def test_no_token_is_empty_or_blank(text: str, how: str) -> None:
    assert all(token and not token.isspace() for token in tokenize_text(text, how))


@given(text=st.text(string.printable, max_size=60))
def test_answer_normalisation_is_idempotent_on_printable_ascii(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


# ---------------------------------------------------------------- faults


def test_faults_are_raised_together() -> None:
    with pytest.raises(ValueError, match="unknown; choose") as raised:
        compute_metrics(["bleu", "blue", "names_target"], ["a", "b"], [["a"]], None, "zh-cn")
    message = str(raised.value)
    for part in (
        "metric 'blue'",
        "tokenize='zh-cn'",
        "references: 1 rows for 2",
        "names_target needs targets",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("predictions", "references", "targets", "message"),
    [
        ([], [], None, "predictions: 0 rows"),
        (["a"], [[]], None, r"references\[0\] is empty"),
        (["a"], ["a"], None, "a row is a string"),
        (["a"], [["a"]], ["a", "b"], "targets: 2 rows for 1"),
    ],
)
def test_unscorable_input_says_what_is_wrong(predictions, references, targets, message) -> None:
    with pytest.raises(ValueError, match=message):
        compute_metrics(["exact_match"], predictions, references, targets, "zh")


def test_blank_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"references\[1\] names no target"):
        compute_metrics(["names_target"], ["a", "b"], [["a"], ["b"]], ["a", " "], "zh")


def test_english_tokeniser_on_chinese_references_is_refused() -> None:
    with pytest.raises(ValueError, match="use tokenize=zh, char or jieba"):
        compute_metrics(["rouge_l"], ["感冒"], [["感冒"]], None, "13a")
    assert compute_metrics(["chrf"], ["感冒"], [["感冒"]], None, "13a")[0]["chrf"] == pytest.approx(100)


def test_unknown_bleu_tokeniser_is_refused_before_it_fetches_a_model() -> None:
    with pytest.raises(ValueError, match="tokenize='flores200'"):
        load_metric("bleu").compute(predictions=["a"], references=["a"], tokenize="flores200")


def test_metrics_table_lists_the_modules_on_disk() -> None:
    folders = {file.parent.name for file in (ROOT / "harness" / "metrics").glob("*/*.py")}
    assert folders == set(ALL)
    assert all((metric_folder(name) / f"{name}.py").is_file() for name in ALL)


# ---------------------------------------------------------------- loading

AS_ANYONE = """
import pathlib, shutil, socket, sys

def refuse(*args, **kwargs):
    raise OSError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse

import evaluate
from harness import metrics

for _ in range(3):
    for name in metrics.METRICS:
        for path in (metrics.path(name), metrics.path(name) / f"{name}.py"):
            metric = evaluate.load(str(path), keep_in_memory=True)
            assert metric.name == name and metric.description and metric.citation
            result = metric.compute(predictions=["abcd efgh"], references=["abcd efgh"])
            assert result["signature"] and (name == "bleu" or result[name] > 99.9), result

copy = pathlib.Path(sys.argv[1]) / "exact_match"
shutil.copytree(metrics.path("exact_match"), copy)
one = {"predictions": ["a"], "references": ["a"]}
assert evaluate.load(str(copy)).compute(**one)["exact_match"] == 100
script = copy / "exact_match.py"
script.write_text(script.read_text().replace("rows.percent(scores)", "rows.percent(scores) / 2"))
assert evaluate.load(str(copy)).compute(**one)["exact_match"] == 50, "stale module"
"""


def test_modules_load_from_their_path_offline_beside_each_other_and_never_stale(tmp_path: Path) -> None:
    """Two processes, one fresh cache, no socket, started outside the checkout."""
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", AS_ANYONE]
    running = [
        subprocess.Popen([*command, str(tmp_path / who)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for who in ("one", "two")
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()


def test_missing_harness_is_not_looked_for_under_its_name_in_a_registry(tmp_path: Path) -> None:
    """`pip install harness` would fetch somebody else's package."""
    bare = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    code = f"import evaluate; evaluate.load({str(metric_folder('bleu'))!r})"
    shadow = f"import sys; sys.modules['harness'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", shadow], cwd=tmp_path, env=bare, capture_output=True, check=False)
    assert b"using 'pip install .'" in done.stderr


def test_scoring_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _jieba.cache_clear()
    compute_metrics(ALL, ["感冒"], [["感冒"]], ["感冒"], "jieba")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, harness.metrics; sys.exit(bool({'evaluate', 'torch', 'jieba'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
