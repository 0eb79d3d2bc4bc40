"""TensorBoard: a folder per run, with its figures, texts and state."""

from tests.support.trackers import play, start, tracker


def test_tensorboard_folder_holds_the_figures_and_a_continued_run_adds_to_it(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = start(tracker("tensorboard", tmp_path))
    play(run, ok=False)
    more = start(tracker("tensorboard", tmp_path), run_id=run.id)
    more.log(4, {"train/loss": 0.25})
    more.finish(True)
    assert [path.name for path in tmp_path.iterdir()] == [run.id]
    events = EventAccumulator(str(tmp_path / run.id))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")][-1] == (4, 0.25)
    assert [e.value for e in events.Scalars("summary/after/exact_match")] == [0.625]
    texts = {tag: events.Tensors(f"{tag}/text_summary") for tag in ("about", "predictions", "state")}
    text = {tag: [e.tensor_proto.string_val[0].decode() for e in found] for tag, found in texts.items()}
    assert "sweep-1" in text["about"][0]
    assert "问题\\|one<br>line|&lt;b&gt;答案&lt;/b&gt;|" in text["predictions"][0]
    assert text["state"][0] == "failed"
