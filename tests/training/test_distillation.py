"""Distillation: the loss is Hinton's, it pulls the student to the teacher, and only a run that distils knows of it."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from harness.data.collate import collate
from harness.data.tokenize import TokenizedRow
from harness.errors import ConfigFault, ModelFault
from harness.models.base import load_base
from harness.training import distillation
from tests.support.runs import command, overrides, plan_of, records_of, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), train_rows=8, others=4)


@pytest.fixture(scope="module")
def big(tmp_path_factory, random_qwen2):
    """Another Qwen2 with the student's tokenizer and wider logits."""
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = AutoTokenizer.from_pretrained(random_qwen2)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(tokenizer) + 5, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    torch.manual_seed(7)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def test_term_is_the_divergence_at_temperature_on_completion_tokens_alone(random_qwen2, big):
    student, teacher = (load_base(plan_of(f"model.path={path}")[0].model).model for path in (random_qwen2, big))
    example = TokenizedRow((5, 6, 7, 8, 2), 2, None, "")
    short = TokenizedRow((5, 9, 2), 1, None, "")
    batch = collate([example, short], 0, "right")
    logits = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    found, cross = distillation.teacher_term(distillation.Teacher(teacher, 2.0, 0.5, ""), logits, batch)
    expected, labels = 0.0, 0.0
    for row in (example, short):
        ids = torch.tensor(row.input_ids)[None]
        with torch.no_grad():
            own, other = student(ids).logits[0], teacher(ids).logits[0][:, : logits.shape[-1]]
        for at in range(row.prompt_length, len(row.input_ids)):
            p, q = ((x[at - 1] / 2.0).softmax(-1) for x in (other, own))
            expected += float((p * (p / q).log()).sum()) * 4.0
            labels += float(functional.cross_entropy(own[at - 1], ids[0, at]))
    assert float(found) == pytest.approx(expected, rel=1e-3)
    assert float(cross) == pytest.approx(labels, rel=1e-4)
    same, _ = distillation.teacher_term(distillation.Teacher(student, 2.0, 0.5, ""), logits, batch)
    assert float(same) == pytest.approx(0.0, abs=1e-4)


def test_weight_zero_trains_as_the_labels_alone_and_a_run_can_teach(random_qwen2, big, rows, tmp_path):
    words = overrides(random_qwen2, rows, tmp_path)
    distil = [*words, "trainer.objective=distill"]
    assert command(*words).code == 0
    [first] = records_of(tmp_path).values()
    for more in (
        [f"trainer.teacher={big}", "trainer.distill_weight=0.0"],
        [f"trainer.teacher={first['fingerprint']}", "trainer.distill_weight=1.0"],
    ):
        done = command(*distil, *more)
        assert done.code == 0, done.err
    by_teacher = {kept["plan"]["trainer"]["teacher"]: kept for kept in records_of(tmp_path).values()}
    plain, idle, taught = by_teacher[None], by_teacher[str(big)], by_teacher[first["fingerprint"]]
    losses = [[point["loss"] for point in kept["training"]["curve"]] for kept in (plain, idle, taught)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] != pytest.approx(losses[0], rel=1e-2)
    assert f"teacher: run {first['fingerprint']} (lora on random)" in taught["notes"]


def test_teacher_enters_the_fingerprint_only_where_it_is_used(weightless, big):
    base = [f"model.path={weightless}", "peft=ia3"]
    distil = [*base, "trainer.objective=distill", f"trainer.teacher={big}"]
    prints = [plan_of(*words)[0].fingerprint for words in (base, [*base, "trainer.distill_weight=0.1"], distil)]
    assert prints[0] == prints[1] != prints[2]
    assert plan_of(*distil, "trainer.distill_temperature=3.0")[0].fingerprint != prints[2]


def test_faults_name_the_setting(weightless, random_qwen2, tmp_path):
    base = [f"model.path={weightless}", "trainer.objective=distill"]
    with pytest.raises(ConfigFault, match=r"trainer\.teacher=null"):
        plan_of(*base)
    with pytest.raises(ConfigFault, match=r"trainer\.distill_temperature=0\.0"):
        plan_of(*base, "trainer.teacher=t", "trainer.distill_temperature=0.0")
    with pytest.raises(ConfigFault, match=r"trainer\.teacher=t has no effect"):
        plan_of(f"model.path={weightless}", "trainer.teacher=t")
    with pytest.raises(ConfigFault, match="cpt"):
        plan_of(*base, "trainer.teacher=t", "peft=cpt")


def test_another_vocabulary_is_refused(random_qwen2, big):
    made = plan_of(f"model.path={random_qwen2}", "trainer.objective=distill", f"trainer.teacher={big}")[0]
    tokenizer = AutoTokenizer.from_pretrained(random_qwen2)
    tokenizer.add_tokens(["more"])
    teacher = distillation.load_teacher(made, runs_dir=random_qwen2)
    with pytest.raises(ModelFault, match="has another vocabulary"):
        distillation.mix_in(teacher, made, tokenizer)
