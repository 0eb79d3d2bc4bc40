"""The referee: both arms tuned alike, pairs of fresh seeds until a verdict, nothing judged twice or left out."""

import json
import random
from unittest import mock

import pytest

from harness.errors import ConfigFault, RunFault
from harness.record import locks
from harness.sweep import execute, referee
from harness.sweep.outcome import Outcome, Status
from harness.sweep.referee import Referee
from tests.support.stored_records import fail, started
from tests.support.sweeps import finish_record, make_cell

CLAIM = "lora.r=2 > lora.r=4"


class Bench:
    """Runs whose scores a function of the plan makes, instead of training.

    Attributes:
        trained: the cells that were run, in their order.
    """

    def __init__(self, runs_dir, model, loss):
        self.runs_dir, self.model, self.loss = runs_dir, model, loss
        self.trained = []

    def prepare(self, jobs, first):
        return [make_cell(self.runs_dir, self.model, *job) for job in jobs], self.dispatch

    def dispatch(self, cells, folder, worklist):
        for cell in cells:
            if worklist.over:
                return
            self.trained.append(cell)
            loss = self.loss(cell.plan)
            fingerprint = cell.plan.fingerprint
            if isinstance(loss, Exception):
                fail(self.runs_dir, started(cell), loss)
                yield Outcome(fingerprint, Status.failed, str(loss))
                continue
            scores = {"before": {}, "after": {"loss": loss}, "signatures": {}, "cut": {}}
            yield Outcome(fingerprint, Status.finished, record=finish_record(cell, scores=scores))

    def referee(self, *words, text=CLAIM):
        settings = make_cell(self.runs_dir, self.model, "stage=claim", f"claim.text='{text}'", *words).options.claim
        return Referee(settings, ["trainer.learning_rate=0.01"], self.prepare)

    def judge(self, *words, text=CLAIM):
        return self.referee(*words, text=text).judge()


@pytest.fixture
def bench(tmp_path, weightless):
    """Makes benches; rows, skeletons and tables are left out."""
    with (
        mock.patch.object(execute, "check_data"),
        mock.patch.object(execute, "check_models"),
        mock.patch.object(referee, "show_results"),
        mock.patch.object(locks, "take_lock", wraps=locks.take_lock),
    ):
        yield lambda loss: Bench(tmp_path, weightless, loss)


def noise(plan):
    """Of each plan its own, with a standard deviation of 0.1."""
    return random.Random(f"{plan.seed} {plan.settings['r']}").gauss(0.0, 0.1)


def r2_wins(plan):
    return plan.settings["r"] + noise(plan)


def kept(result, bench):
    return json.loads((bench.runs_dir / "claims" / result.name / "claim.json").read_text())


def test_a_clear_claim_is_supported_with_the_fewest_pairs(bench):
    found = bench(r2_wins)
    result = found.judge()
    content = kept(result, found)
    assert (content["verdict"], content["pairs"], content["stopped"]) == ("supported", 5, "supported")
    assert content["interval"][0] < content["estimate"] < content["interval"][1]
    assert content["interval"][0] > 0
    assert content["cost"]["runs"] == len(found.trained) == 6 + 10
    assert content["cost"]["tuning_runs"] == 6


def test_the_opposite_claim_is_refuted(bench):
    found = bench(r2_wins)
    content = kept(found.judge(text="lora.r=4 > lora.r=2"), found)
    assert content["verdict"] == "refuted"
    assert content["interval"][1] < 0


def test_arms_without_a_difference_are_undecided_once_the_budget_is_spent(bench):
    found = bench(noise)
    result = found.judge("claim.budget.runs=31")
    content = kept(result, found)
    assert (content["verdict"], content["pairs"]) == ("undecided", 12)
    assert content["cost"]["runs"] == len(found.trained) == 30
    assert content["stopped"] == "claim.budget.runs=31 is spent"


def test_arms_without_a_difference_are_equal_within_a_margin(bench):
    found = bench(noise)
    assert kept(found.judge(text="lora.r=2 == lora.r=4 on loss within 0.5"), found)["verdict"] == "supported"


def test_both_arms_are_tuned_with_as_many_runs_on_other_rows_and_seeds(bench):
    def loss(plan):
        best = {2: 0.003, 4: 0.03}[plan.settings["r"]]
        return abs(plan.learning_rate - best) + r2_wins(plan)

    found = bench(loss)
    result = found.judge("claim.seeds=2")
    tuning = [cell.plan for cell in found.trained if cell.plan.scoring.split == "validation"]
    pairs = [cell.plan for cell in found.trained if cell.plan.scoring.split == "test"]
    assert [plan.settings["r"] for plan in tuning] == [2] * 6 + [4] * 6
    assert {plan.seed for plan in tuning} == {0, 1}
    assert [plan.seed for plan in pairs] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert {(plan.settings["r"], plan.learning_rate) for plan in pairs} == {(2, 0.003), (4, 0.03)}
    assert result.better.at_edge
    assert "at the edge of those tried" in kept(result, found)["paragraph"]


def test_rates_that_a_coarse_score_does_not_tell_apart_are_chosen_by_the_loss(bench):
    def loss(plan):
        return abs(plan.learning_rate - 0.03) + r2_wins(plan)

    found = bench(loss)
    dispatch = found.dispatch

    def coarse(cells, folder, worklist):
        for outcome in dispatch(cells, folder, worklist):
            record = outcome.record
            record["scores"]["after"]["bleu"] = 0.0 if record["plan"]["scoring"]["split"] == "validation" else 1.0
            from harness.record import store

            store.write_record(found.runs_dir, record)
            yield outcome

    found.dispatch = coarse
    result = found.judge("claim.budget.runs=16", text="lora.r=2 > lora.r=4 on bleu")
    assert (result.better.rate, result.than.rate) == (0.03, 0.03)
    assert "All pairs differed by the same 0 points" in kept(result, found)["paragraph"]


def test_nothing_is_tuned_with_one_rate(bench):
    found = bench(r2_wins)
    result = found.judge("claim.rates=[1.0]")
    assert {cell.plan.learning_rate for cell in found.trained} == {0.01}
    assert len(found.trained) == 10
    assert "No learning rate was tuned" in kept(result, found)["paragraph"]


def test_each_pair_says_how_many_more_are_expected(bench, caplog):
    caplog.set_level("INFO")
    bench(r2_wins).judge()
    lines = [each.message for each in caplog.records if each.message.startswith("pair ")]
    assert lines[0].startswith("pair 1 (seed 1): +")
    assert "no verdict before pair 5" in lines[1]
    assert "expected" in lines[3]
    assert lines[4].endswith("supported")


def test_a_claim_that_was_killed_resumes_with_the_same_verdict(bench):
    class Killed(BaseException):
        pass

    def dies(plan):
        if plan.seed == 3 and plan.settings["r"] == 4:
            raise Killed
        return r2_wins(plan)

    cut = bench(dies)
    with pytest.raises(Killed):
        cut.judge()
    [file] = (cut.runs_dir / "claims").glob("*/claim.json")
    assert json.loads(file.read_text())["pairs"] == 2
    again = bench(r2_wins)
    content = kept(again.judge(), again)
    assert [(cell.plan.seed, cell.plan.settings["r"]) for cell in again.trained] == [
        *((3, 4), (4, 2), (4, 4), (5, 2), (5, 4))
    ]
    assert (content["verdict"], content["pairs"]) == ("supported", 5)
    third = bench(r2_wins)
    assert kept(third.judge(), third) == content
    assert third.trained == []


def test_a_larger_budget_continues_an_undecided_claim(bench):
    first = bench(noise)
    first.judge("claim.budget.runs=20")
    more = bench(noise)
    result = more.judge("claim.budget.runs=24")
    assert (len(result.pairs), len(more.trained)) == (9, 4)


def test_a_pair_that_fails_is_not_skipped(bench):
    def loss(plan):
        return ValueError("the loss became nan") if (plan.seed, plan.settings["r"]) == (3, 4) else r2_wins(plan)

    found = bench(loss)
    with pytest.raises(RunFault, match=r"the pair of seed 3 cannot be judged: .*the loss became nan.*not skipped"):
        found.judge()
    [file] = (found.runs_dir / "claims").glob("*/claim.json")
    content = json.loads(file.read_text())
    assert (content["verdict"], content["pairs"], content["stopped"]) == ("undecided", 2, None)


def test_a_rate_that_diverges_only_loses(bench):
    def loss(plan):
        return ValueError("the loss became nan") if plan.learning_rate == 0.03 else r2_wins(plan)

    found = bench(loss)
    content = kept(found.judge(), found)
    assert content["verdict"] == "supported"
    assert [each["mean"] is None for each in content["arms"]["better"]["tried"]] == [False, False, True]


def test_an_arm_without_a_rate_that_finishes_is_an_error(bench):
    def loss(plan):
        return ValueError("nan") if plan.settings["r"] == 4 else r2_wins(plan)

    with pytest.raises(RunFault, match=r"no learning rate of .*lora.r=4.* has finished on validation"):
        bench(loss).judge()


def test_seconds_end_a_claim_too(bench):
    found = bench(noise)
    dispatch = found.dispatch

    def slow(cells, folder, worklist):
        for outcome in dispatch(cells, folder, worklist):
            from harness.record import store

            record = outcome.record | {"times_s": {"train": 10.0}}
            store.write_record(found.runs_dir, record)
            yield outcome

    found.dispatch = slow
    content = kept(found.judge("claim.budget.seconds=95"), found)
    assert (content["cost"]["seconds"], content["stopped"]) == (100.0, "claim.budget.seconds=95 is spent")


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("lora.r=2 > lora.r=2", [], "both arms make the same plan"),
        ("lora.r=2 > lora.r=2 ia3.learning_rate=7", [], "both arms make the same plan"),
        ("trainer.learning_rate=0.1 > trainer.learning_rate=0.2", [], "would tune away the only difference"),
        ("lora.r=2 > lora.r=4 scoring.loss_batch_size=3 data.limits.test=5", [], "the arms differ in data"),
        (CLAIM, ["claim.budget.runs=15"], "6 runs of tuning and 5 pairs are 16 runs"),
        (CLAIM + " at equal budget", [], "differ by more than 5 %"),
    ],
)
def test_arms_that_cannot_be_judged_are_refused_before_anything_runs(bench, text, words, message):
    found = bench(r2_wins)
    counts = [mock.Mock(trainable=100), mock.Mock(trainable=106)]
    counter = mock.patch("harness.estimate.plan_counter.PlanCounter.count", side_effect=counts)
    with counter, pytest.raises(ConfigFault, match=message):
        found.judge(*words, text=text)
    assert found.trained == []


def test_arms_of_about_one_size_are_at_equal_budget(bench):
    found = bench(r2_wins)
    counts = [mock.Mock(trainable=100), mock.Mock(trainable=104)]
    with mock.patch("harness.estimate.plan_counter.PlanCounter.count", side_effect=counts):
        content = kept(found.judge(text=CLAIM + " at equal budget"), found)
    assert [content["arms"][arm]["trainable"] for arm in ("better", "than")] == [100, 104]


def test_the_folder_of_another_claim_is_refused(bench):
    bench(r2_wins).judge("claim.name=mine")
    with pytest.raises(ConfigFault, match=r"claim\.name=mine is the folder of another claim"):
        bench(r2_wins).judge("claim.name=mine", text="lora.r=4 > lora.r=2")
    bench(r2_wins).judge("claim.name=mine", "claim.budget.runs=99")


def test_a_result_of_other_sources_is_kept_beside_the_new_one(bench):
    first = bench(r2_wins)
    content = kept(first.judge("claim.name=mine"), first)
    with mock.patch("harness.record.provenance.code_version", return_value="other"):
        again = bench(r2_wins)
        again.judge("claim.name=mine")
    folder = again.runs_dir / "claims" / "mine"
    assert json.loads((folder / "claim.json.earlier-1").read_text()) == content
    assert json.loads((folder / "claim.json").read_text())["setting"]["code"] == "other"


def test_two_commands_do_not_judge_one_claim_at_once(bench):
    found = bench(r2_wins)
    judge = found.referee("claim.name=mine")
    judge.folder.mkdir(parents=True)
    with locks.take_lock(judge.folder), pytest.raises(RunFault, match="is judging this claim"):
        judge.judge()
