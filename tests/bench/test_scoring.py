"""The benchmark of scoring runs, compares answers, and prints a ratio for each way."""

import sys

import pytest


@pytest.mark.slow
def test_every_way_is_measured_and_gives_equal_answers(bench, monkeypatch, capsys):
    few = ["--prompts", "8", "--alone", "4", "--rounds", "1", "--steps", "1", "--max-new-tokens", "4"]
    monkeypatch.setattr(sys, "argv", ["scoring.py", *few, "trainer.threads=1", "trainer.batch_size=2"])
    bench("scoring").main()
    out = capsys.readouterr().out
    for way in ("batches, base", "refilled, base", "batches, adapter", "refilled, adapter", "scored, adapter"):
        assert f"{way}: 4 of 4 answers equal those alone" in out
    assert "same work: " in out
    assert "in parts, adapter" in out
