"""Finished runs for the stages that use them."""

import pytest

from tests.support.runs import command, overrides, records_of, write_rows


@pytest.fixture(scope="package")
def made(tmp_path_factory, random_qwen2):
    """Finished runs of three kinds, by their method, and the words that find them again."""
    folder = tmp_path_factory.mktemp("export")
    rows, runs_dir = write_rows(folder / "rows", train_rows=8, others=4), folder / "runs"
    words = [*overrides(random_qwen2, rows, runs_dir), "trainer.learning_rate=1e-2"]
    for more in ([], ["model.quantization=nf4", "lora.r=4"], ["peft=prompt_tuning"]):
        done = command(*words, *more)
        assert done.code == 0, done.err
    return {
        f"{record['method']} {record['plan']['model']['quantization']}": record
        for record in records_of(runs_dir).values()
    }, runs_dir
