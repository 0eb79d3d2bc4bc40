"""The progress file: complete at any moment, written rarely, gone when the run has ended."""

from harness.record import progress


def test_progress_is_whole_rare_and_gone_at_the_end(tmp_path):
    writer = progress.ProgressWriter(tmp_path)
    writer.begin(5, 25)
    assert not writer.due()
    writer.step(15, float("nan"), 10.0)
    told = progress.read_progress(tmp_path)
    assert (told.step, told.steps, told.loss) == (15, 25, None)
    assert [path.name for path in tmp_path.iterdir()] == [progress.NAME]
    writer.end()
    writer.end()
    assert progress.read_progress(tmp_path) is None


def test_of_several_processes_the_first_alone_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.distributed, "is_main_process", lambda: False)
    progress.ProgressWriter(tmp_path).enter("training")
    assert list(tmp_path.iterdir()) == []


def test_progress_that_cannot_be_written_or_read_disturbs_nobody(tmp_path):
    progress.ProgressWriter(tmp_path / "none").enter("loading")
    (tmp_path / progress.NAME).write_text('{"state": "tr')
    assert progress.read_progress(tmp_path) is None
