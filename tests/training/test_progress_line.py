"""Progress of a training in a notebook: one line, written anew with each epoch."""

from nnlite.training import Settings, find_run, list_runs, load_run, make_run, show_epochs, train
from nnlite.training.progress import epoch_line

SMALL = Settings(hidden=(8,), epochs=3)


def test_each_epoch_writes_over_the_one_before(digits, capsys):
    history = train(SMALL, digits, show_epochs(SMALL.epochs)).history
    lines = [epoch_line(epoch, 3) for epoch in history]
    assert capsys.readouterr().out == "".join(f"\r{line}" for line in lines) + "\n"
    one = history[1]
    assert lines[1] == f"epoch 2/3  loss {one.loss:.4f}  validation {one.validation:.2f} %"


def test_runs_are_kept_and_found_by_text(digits, tmp_path):
    made = make_run(SMALL, digits, str(tmp_path), name="small")
    assert made.path == tmp_path / "digits" / "small"
    assert find_run("small", "digits", str(tmp_path)).results == made.results
    assert load_run(str(made.path)).results == made.results
    assert [run.name for run in list_runs(str(tmp_path))] == ["small"]
