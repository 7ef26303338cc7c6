"""The commands on a user's own data: tables with text labels, small classes, images in a folder; and bad files."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.neural_network import MLPClassifier
from tables import blobs, write_blobs, write_csv, write_idx_folder

from nnlite.attacks import R1
from nnlite.datasets import Dataset, check_samples, load
from nnlite.errors import NnliteError
from nnlite.training.run_folder import load_run
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

TRAIN = ["train", "--hidden", 16, "--epochs", 30, "--batch-size", 10, "--name", "rect"]


@pytest.fixture
def wine(nnlite, tmp_path):
    """A table of two classes, and two runs on it: rect and DataGrad-L1."""
    write_blobs(tmp_path / "wine.csv", names=("red", "white"))
    for method in ([], ["--reg", "dgl1", "--lam", 0.01, "--phi", 0.1, "--name", "dgl1-lam0.01-phi0.1"]):
        result = nnlite(*TRAIN, "--data", "wine.csv", *method)
        assert result.exit_code == 0, result.stderr
    return tmp_path / "wine.csv"


def ok(result):
    assert result.exit_code == 0, result.stderr
    return result


def one_error(result):
    """Return the error of a command that ended with bad input: one line, and nothing on stdout."""
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


# --- a run knows its data


def test_a_run_records_its_data_and_is_kept_under_its_name(wine, tmp_path):
    run = load_run(tmp_path / "runs" / "wine" / "rect")
    content = json.loads((run.path / "settings.json").read_text("utf-8"))["data"]
    data = load(str(wine))
    assert run.data == data.description
    assert run.settings.data == content["name"] == "wine"
    assert content["classes"] == ["red", "white"]
    assert content["features"] == ["f0", "f1", "f2"]
    assert content["low"] == list(data.description.low)
    assert content["split"]["sizes"] == [len(data.train), len(data.validation), len(data.test)]
    assert run.net.sizes == (3, 16, 2)
    assert run.results.test > 90


def test_every_command_works_on_a_table(nnlite, wine):
    given = ["--data", "wine.csv"]
    for command in (
        ["attack", "--adversary", "rect", *given, "--plot", "a.png", "--images", "b.png", "--save", "a.safetensors"],
        ["attack", "--adversary", "rect", *given, "--noise", "pgd", "--json"],
        ["verify", "a.safetensors", *given, "--run", "rect"],
        ["audit", "rect", *given, "--steps", 5, "--apgd-steps", 5, "--tries", 2, "--proven", 5, "--plot", "c.png"],
        ["certify", "rect", *given, "--examples", 5, "--per-image", "--plot", "d.png"],
        ["gradcheck", "--datagrad", "--run", "rect", *given, "--batch-size", 5],
        [
            "grid",
            *given,
            "--hidden",
            16,
            "--epochs",
            20,
            "--seed",
            "0,1",
            "--batch-size",
            10,
            "--jobs",
            1,
            "--select",
            "pgd",
        ],
        ["runs", *given],
        ["runs", "--data", "wine", "--json"],
    ):
        result = nnlite(*command)
        assert result.exit_code in ((0, 1) if command[0] == "audit" else (0,)), (command, result.stderr)


def test_every_command_works_on_images_in_a_folder(nnlite, tmp_path):
    write_idx_folder(tmp_path / "stripes", shape=(4, 4, 3))
    given = ["--data", "stripes"]
    ok(nnlite(*TRAIN, *given))
    for command in (
        [*TRAIN, *given, "--multitask", "--name", "mt"],
        ["attack", "--adversary", "rect", *given, "--images", "b.png"],
        ["certify", "rect", *given, "--examples", 3],
        ["predict", "rect", "stripes/t10k-images-idx3-ubyte"],
    ):
        ok(nnlite(*command))


def test_other_data_and_other_splits_are_never_attacked(nnlite, wine, tmp_path):
    write_blobs(tmp_path / "beer.csv", names=("red", "white"))
    error = one_error(nnlite("attack", "--adversary", "runs/wine/rect", "--data", "beer.csv"))
    assert "runs/wine/rect belongs to the data wine, found beer; choose others, or give the data with --data" in error
    assert "belongs to the data wine, found digits" in one_error(nnlite("attack", "--adversary", "runs/wine/rect"))

    ok(nnlite(*TRAIN, "--data", "wine.csv", "--seed", 1, "--name", "second"))
    result = ok(nnlite("attack", "--adversary", "rect", "--data", "wine.csv", "--json"))
    assert json.loads(result.stdout)["accuracy"].keys() == {"rect", "dgl1-lam0.01-phi0.1"}
    assert "left out, as their data or their split is another one: second\n" in result.stderr
    error = one_error(nnlite("attack", "--adversary", "rect", "--victim", "second", "--data", "wine.csv"))
    assert "runs/wine/second was trained on another split of wine, 0.7,0.15,0.15 of seed 1, found" in error
    own = ok(nnlite("attack", "--adversary", "second", "--data", "wine.csv", "--json"))  # on the split of its seed
    assert json.loads(own.stdout)["accuracy"].keys() == {"second"}
    run = load_run(tmp_path / "runs" / "wine" / "second")
    assert json.loads(own.stdout)["accuracy"]["second"][0] == run.results.test


@pytest.mark.parametrize(
    "command",
    [
        ["attack", "--adversary", "rect"],
        ["audit", "rect"],
        ["certify", "rect"],
        ["gradcheck", "--datagrad", "--run", "rect"],
        [*TRAIN, "--resume"],
        ["verify", "a.safetensors"],
    ],
    ids=lambda command: command[0],
)
def test_a_file_that_changed_is_refused(nnlite, wine, command):
    if command[0] == "verify":
        ok(nnlite("attack", "--adversary", "rect", "--data", "wine.csv", "--save", "a.safetensors"))
    with wine.open("a") as file:
        file.write("1,2,3,red\n")
    result = nnlite(*command, "--data", "wine.csv")
    assert (result.exit_code, result.stdout) == (2, "")
    error = result.stderr.splitlines()[-1]
    assert "belongs to another wine, of SHA-256 " in error
    assert error.endswith("the data have changed since; restore them, or train again under another --name")


def test_a_grid_does_not_take_runs_on_a_file_that_changed_for_finished(nnlite, wine):
    options = "--hidden 16 --epochs 20 --seed 0,1 --batch-size 10 --jobs 1"
    grid = ["grid", "--data", "wine.csv", *options.split()]
    ok(nnlite(*grid))
    ok(nnlite(*grid))
    with wine.open("a") as file:
        file.write("1,2,3,red\n")
    assert "the data have changed since" in one_error(nnlite(*grid))


def test_a_checkpoint_of_other_data_is_not_resumed(nnlite, tmp_path):
    path = write_blobs(tmp_path / "wine.csv")

    def stop(epoch):
        raise KeyboardInterrupt

    settings = Settings(hidden=(8,), epochs=5, batch_size=10)
    make_run(settings, load(str(path)), tmp_path / "runs", name="rect", on_epoch=stop)
    write_blobs(path, seed=1)
    with pytest.raises(NnliteError, match=r"runs/wine/rect belongs to another wine, .*the data have changed since"):
        make_run(settings, load(str(path)), tmp_path / "runs", name="rect", resume=True)


def test_a_grid_file_names_own_data_beside_those_of_nnlite(nnlite, tmp_path):
    write_blobs(tmp_path / "wine.csv")
    (tmp_path / "grid.toml").write_text(
        'data = ["wine.csv", "digits"]\nhidden = [4]\nepochs = 1\nsplit = [0.6, 0.2, 0.2]\n'
    )
    assert "split: digits has its own; leave it out" in nnlite("grid", "grid.toml", "--jobs", 1).stderr
    (tmp_path / "grid.toml").write_text('data = ["wine.csv", "digits"]\nhidden = [16]\nepochs = 20\nbatch_size = 20\n')
    ok(nnlite("grid", "grid.toml", "--jobs", 2))
    assert load_run(tmp_path / "runs" / "wine" / "rect-hidden16-epochs20-batch20").net.sizes == (3, 16, 3)
    assert load_run(tmp_path / "runs" / "digits" / "rect-hidden16-epochs20-batch20").net.sizes == (64, 16, 10)


def test_a_data_set_of_ones_own_never_becomes_a_run_of_digits(digits, tmp_path):
    x, y = blobs(30)
    samples = check_samples((x - x.min()) / (x.max() - x.min()), y)
    settings = Settings(hidden=(4,), epochs=1)
    run = make_run(settings, Dataset("own", samples, samples, samples, (3,), 3), tmp_path, name="rect")
    assert run.path == tmp_path / "own" / "rect"
    assert load_run(run.path).settings.data == load_run(run.path).data.name == "own"
    with pytest.raises(NnliteError, match=r"data: digits is the name of a data set of nnlite, found other samples"):
        make_run(settings, Dataset("digits", samples, samples, samples, (3,), 3), tmp_path)
    with pytest.raises(NnliteError, match=r"data: expected the settings of digits, found those of mnist"):
        make_run(Settings(data="mnist", hidden=(4,), epochs=1), digits, tmp_path)


# --- columns that noise may not move


def test_noise_leaves_frozen_columns_and_moves_others_no_further_than_told(nnlite, wine, tmp_path):
    given = ["--data", "wine.csv", "--frozen", "f0", "--phi-column", "f2=1/50"]
    for noise in ("r1", "pgd", "apgd", "fmn"):
        more = ["--noise", noise, "--phi", "0,0.2", "--save", f"{noise}.safetensors"]
        result = ok(nnlite("attack", "--adversary", "rect", *given, *more, *(["--clip"] if noise == "r1" else [])))
        assert "noise leaves f0, moves f2 by at most 0.02" in result.stderr
        images = safetensors.numpy.load_file(tmp_path / f"{noise}.safetensors")
        moved = abs(images["images1"] - images["images0"])
        assert not moved[:, 0].any()
        assert moved[:, 2].max() <= 0.02 + 1e-6
        assert moved[:, 1].max() > 0.1 or noise == "fmn"  # which finds none for some images
        ok(nnlite("verify", f"{noise}.safetensors", "--data", "wine.csv", "--run", "rect"))


def test_with_all_columns_frozen_everything_is_proven_that_is_right(nnlite, wine):
    frozen = [word for k in range(3) for word in ("--frozen", f"f{k}")]
    given = ["rect", "--data", "wine.csv", "--phi", "0.3", "--json"]
    held, free = (json.loads(ok(nnlite("certify", *given, *more)).stdout)["runs"][0] for more in (frozen, []))
    assert held["accuracy"]["proven"] == held["accuracy"]["worst"]
    assert held["accuracy"]["proven"][0] == held["accuracy"]["proven"][1] > free["accuracy"]["proven"][1]
    quick = ["--steps", 3, "--apgd-steps", 3, "--tries", 1, "--proven", 5]
    audited = json.loads(nnlite("audit", *given, *frozen, *quick).stdout)
    assert audited["accuracy"]["worst"][0] == audited["accuracy"]["worst"][1]


HOUSES = ["--data", "houses.csv", "--first", 12]


@pytest.fixture
def houses(nnlite, tmp_path):
    """A table of which a column is whole, and a run on it."""
    x, y = blobs(90, classes=2)
    rows = [[*row, round(row[0]), "ab"[k]] for row, k in zip(x.tolist(), y, strict=True)]
    write_csv(tmp_path / "houses.csv", ["size", "age", "price", "rooms", "kind"], rows)
    ok(nnlite(*TRAIN, "--data", "houses.csv"))
    return tmp_path / "houses.csv"


def test_a_column_stays_whole_in_every_attack_and_its_file_says_so(nnlite, houses, tmp_path):
    about = load(houses).description
    low, high = about.low[3], about.high[3]
    for noise in ("r1", "r2", "pgd", "pgd-l2", "apgd", "fmn", "lbfgs"):
        more = ["--noise", noise, "--phi", "0,0.3", "--clip", "--save", f"{noise}.safetensors", "--json"]
        result = ok(nnlite("attack", "--adversary", "rect", *HOUSES, "--frozen", "age", "--whole", "rooms", *more))
        assert "noise leaves age, keeps rooms whole\n" in result.stderr
        assert json.loads(result.stdout)["columns"] == {"frozen": ["age"], "limits": {}, "whole": ["rooms"]}
        images = safetensors.numpy.load_file(tmp_path / f"{noise}.safetensors")
        moved = images["images1"].astype(float) - images["images0"]
        rooms = low + images["images1"][:, 3].astype(float) * (high - low)
        np.testing.assert_allclose(rooms, np.rint(rooms), atol=1e-6 * (high - low))
        assert abs(moved[:, 3]).max() <= 0.3 + 1e-6 or noise == "r2"
        assert abs(moved[:, 3]).max() > 0 or noise in ("fmn", "lbfgs")
        assert not moved[:, 1].any()
        ok(nnlite("verify", f"{noise}.safetensors", "--data", "houses.csv", "--run", "rect"))


def test_a_file_whose_columns_are_not_as_it_says_fails(nnlite, houses, tmp_path):
    options = ["--noise", "pgd", "--phi", "0.3", "--frozen", "age", "--phi-column", "size=0.05", "--whole", "rooms"]
    ok(nnlite("attack", "--adversary", "rect", *HOUSES, *options, "--save", "FILE"))
    arrays = safetensors.numpy.load_file("FILE")
    with safetensors.safe_open("FILE", "np") as file:
        metadata = file.metadata()
    record = json.loads(metadata["nnlite-attack"])
    assert record["columns"] == {"frozen": ["age"], "limits": {"size": 0.05}, "whole": ["rooms"]}
    for column, change, words in ((1, 0.01, "outside"), (0, 0.06, "outside"), (3, 0.01, "fractions in rooms: 1 of 12")):
        changed = {name: array.copy() for name, array in arrays.items()}
        value = changed["images0"][5, column]
        changed["images0"][5, column] = value + change * (1 if value < 0.5 else -1)
        if column == 0:
            changed["images0"][5, 0] = load(houses).test.images[5, 0] + change * (1 if value < 0.5 else -1)
        safetensors.numpy.save_file(changed, "FILE", metadata)
        result = nnlite("verify", "FILE", "--data", "houses.csv")
        assert (result.exit_code, words in result.stdout) == (1, True), result.stdout


def test_rows_are_led_towards_a_class_by_name_or_number(nnlite, houses, tmp_path):
    given = ["attack", "--adversary", "rect", *HOUSES, "--noise", "pgd", "--phi", "0,0.5"]
    result = ok(nnlite(*given, "--target", "b", "--save", "FILE"))
    labels = load(houses).test.labels[:12]
    own = int((labels == 1).sum())
    assert f"taken for b, in % of the {12 - own} rows of other classes\n" in result.stdout
    assert f"{own} rows of class b stay as they are\n" in result.stderr
    assert "towards class 1" in result.stdout
    content = json.loads(ok(nnlite(*given, "--target", "1", "--json")).stdout)
    assert (content["target"], content["labels"], list(content["reached"])) == ("b", "true", ["rect"])
    net, images = load_run(tmp_path / "runs" / "houses" / "rect").net, safetensors.numpy.load_file("FILE")
    for k in range(2):
        read = net.predict(images[f"images{k}"])[labels != 1] == 1
        assert content["reached"]["rect"][k] == 100 * read.mean()
        assert images["reached"][0, k] == read.sum()
    head, *rows = csv.reader(ok(nnlite(*given, "--target", "b", "--csv")).stdout.splitlines())
    assert head == ["adversary", "noise", "victim", "phi", "accuracy", "reached"]
    assert [float(row[-1]) for row in rows] == content["reached"]["rect"]
    found = json.loads(ok(nnlite("verify", "FILE", "--data", "houses.csv", "--run", "rect", "--json")).stdout)
    assert found["runs"][0]["reached"] == content["reached"]["rect"]
    assert (found["record"]["target"], found["record"]["labels"]) == (1, "true")
    with safetensors.safe_open("FILE", "np") as file:
        metadata = file.metadata()
    images["reached"][0, 1] -= 1
    safetensors.numpy.save_file(images, "FILE", metadata)
    result = nnlite("verify", "FILE", "--data", "houses.csv", "--run", "rect")
    assert result.exit_code == 1
    assert re.search(r"phi 0.5: rect takes \d+ of 12 images for the target, recorded are \d+", result.stdout)


def test_an_adversary_may_go_by_predictions(nnlite, houses, tmp_path):
    given = ["attack", "--adversary", "rect", *HOUSES, "--noise", "r1", "--labels", "predicted"]
    result = ok(nnlite(*given, "--save", "FILE"))
    assert "told predicted labels" in result.stdout
    x, _ = load(houses).test[:12].batch(slice(None))
    net = load_run(tmp_path / "runs" / "houses" / "rect").net
    expected = R1.craft(net, x, net.predict(x), (0.1,), np.random.default_rng(0)).images[0]
    assert (safetensors.numpy.load_file("FILE")["images4"] == expected).all()
    with safetensors.safe_open("FILE", "np") as file:
        assert json.loads(file.metadata()["nnlite-attack"])["labels"] == "predicted"


def test_an_audit_rounds_and_says_what_its_proofs_mean(nnlite, houses):
    quick = ["--steps", 3, "--apgd-steps", 3, "--tries", 1, "--proven", 5, "--examples", 10, "--phi", "0.2"]
    result = nnlite("audit", "rect", "--data", "houses.csv", "--whole", "rooms", *quick, "--json")
    assert result.exit_code in (0, 1)
    words = "what is proven holds for all numbers within phi, and so for the whole ones, too\n"
    assert words in result.stderr
    assert json.loads(result.stdout)["columns"]["whole"] == ["rooms"]
    result = ok(nnlite("certify", "rect", "--data", "houses.csv", "--whole", "rooms", "--examples", 5, "--json"))
    assert words in result.stderr
    error = one_error(nnlite("certify", "rect", "--data", "houses.csv", "--whole", "rooms", "--per-image"))
    assert "whole: the radii of each image are those of any noise" in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--whole", "size"], "whole: expected whole numbers in column 'size', found "),
        (["--whole", "room"], r"houses has no 'room' \(did you mean 'rooms'\?\)"),
        (["--whole", "rooms", "--no-clip"], "whole: they hold noise in a box; .* --clip"),
        (["--target", "c"], "target: expected one of a, b, found 'c'"),
        (["--target", "2"], "target: expected one of a, b, found '2'"),
        (["--target", "-1"], "target: expected one of a, b, found '-1'"),
        (["--target", "a", "--noise", "apgd-t"], "target: noise apgd-t cannot be led towards one class, only r1, r2"),
        (["--target", "a", "--noise", "square"], "target: noise square cannot be led towards one class, only r1, r2"),
        (["--labels", "none"], "'none' is not one of 'true', 'predicted'"),
    ],
)
def test_an_aim_that_cannot_be_is_refused(nnlite, houses, tmp_path, options, words):
    given = ["attack", "--adversary", "rect", "--data", "houses.csv", "--noise", "pgd", "--save", "FILE"]
    assert re.search(words, one_error(nnlite(*given, *options)))
    assert not (tmp_path / "FILE").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frozen", "f9"], r"wine has no 'f9'.*the columns are f0, f1, f2"),
        (["--phi-column", "f0"], "expected NAME=PHI, such as alcohol=0.05, found 'f0'"),
        (["--phi-column", "f0=-1"], "at least 0"),
        (["--frozen", "f0", "--no-clip"], "keep it in the data's range with --clip"),
    ],
)
def test_a_column_that_cannot_be_held_is_refused(nnlite, wine, options, words):
    result = nnlite("attack", "--adversary", "rect", "--data", "wine.csv", "--noise", "pgd", *options)
    assert result.exit_code == 2
    assert re.search(words, result.stderr)


# --- predict


def test_new_rows_are_predicted_as_the_net_does(nnlite, wine, tmp_path):
    x, _ = blobs(90, classes=2)
    low, high = np.array(load(str(wine)).description.low), np.array(load(str(wine)).description.high)
    inside = x[((x >= low) & (x <= high)).all(axis=1)]
    write_csv(tmp_path / "new.csv", ["f2", "f1", "f0"], inside[:, ::-1].tolist())
    result = ok(nnlite("predict", "rect", "new.csv"))
    assert result.stderr == ""
    head, *lines = csv.reader(result.stdout.splitlines())
    assert head == ["class", "p(red)", "p(white)"]
    net = load_run(tmp_path / "runs" / "wine" / "rect").net
    logits = net.logits(((inside - low) / (high - low)).astype(np.float32)).astype(float)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose([[float(one) for one in line[1:]] for line in lines], p, rtol=1e-4)
    assert [line[0] for line in lines] == [("red", "white")[k] for k in p.argmax(axis=1)]
    content = json.loads(ok(nnlite("predict", "wine/rect", "new.csv", "--json")).stdout)
    assert [one["class"] for one in content["rows"]] == [line[0] for line in lines]
    assert content["rows"][0]["probabilities"].keys() == {"red", "white"}
    assert (content["run"], content["examples"], content["accuracy"], content["balanced"], content["classes"]) == (
        "rect",
        len(inside),
        None,
        None,
        [],
    )


def test_where_there_are_labels_each_class_has_its_recall(nnlite, wine, tmp_path):
    head, *table = csv.reader(wine.read_text("utf-8").splitlines())
    table[0][-1], table[2][-1], table[1][-1] = "white", "white", "red"  # as if the net were wrong about three
    write_csv(tmp_path / "new.csv", head, table)
    result = ok(nnlite("predict", "rect", "new.csv"))
    predicted = [line.split(",")[0] for line in result.stdout.splitlines()[1:]]
    labels = [row[-1] for row in table]
    recalls = {name: 100 * recall_score(labels, predicted, labels=[name], average="macro") for name in ("red", "white")}
    rows = {line.split()[0]: line.split()[1:] for line in result.stderr.splitlines() if line.strip()}
    assert rows["rect"] == ["on", "new.csv,", "in", "%"]
    assert {name: rows[name] for name in recalls} == {
        name: [str(labels.count(name)), f"{recall:.2f}"] for name, recall in recalls.items()
    }
    balanced = 100 * balanced_accuracy_score(labels, predicted)
    assert f"balanced accuracy        90   {balanced:.2f}\n" in result.stderr
    content = json.loads(ok(nnlite("predict", "rect", "new.csv", "--json")).stdout)
    assert content["balanced"] == pytest.approx(balanced)
    assert content["accuracy"] == pytest.approx(100 * np.mean(np.array(labels) == np.array(predicted)))
    expected = [
        {"class": name, "examples": labels.count(name), "recall": pytest.approx(one)} for name, one in recalls.items()
    ]
    assert content["classes"] == expected


UNSURE = ["red", "", "NA", "rose", "white", "red", "?", "white"]


def test_rows_without_a_label_that_the_net_knows_are_left_out_of_the_figures(nnlite, wine, tmp_path):
    head, *rows = csv.reader(wine.read_text("utf-8").splitlines())
    rows = [[*row[:3], label] for row, label in zip(rows[:8], UNSURE, strict=True)]
    write_csv(tmp_path / "new.csv", head, rows)
    result = ok(nnlite("predict", "rect", "new.csv", "--json"))
    content = json.loads(result.stdout)
    assert [(one["class"], one["examples"]) for one in content["classes"]] == [("red", 2), ("white", 2)]
    assert len(content["rows"]) == content["examples"] == 8
    assert "4 of 8 rows have no label, or one that rect does not know; the figures leave them out.\n" in result.stderr
    write_csv(tmp_path / "new.csv", head, [[*row[:3], ""] for row in rows])
    result = ok(nnlite("predict", "rect", "new.csv"))
    assert "8 of 8 rows have no label" in result.stderr
    assert "balanced" not in result.stderr


def test_a_label_column_may_be_there_and_rows_beyond_the_range_are_counted(nnlite, wine, tmp_path):
    rows = list(csv.reader(wine.read_text("utf-8").splitlines()))
    write_csv(tmp_path / "new.csv", rows[0], [rows[1], ["1e6", *rows[1][1:]]])
    result = ok(nnlite("predict", "runs/wine/rect", "new.csv"))
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr.startswith("Note: 1 of 2 rows lie beyond the training range; do not rely on their classes.\n")


def test_a_run_of_digits_predicts_images(nnlite, digits, tmp_path):
    ok(nnlite("train", "--hidden", 16, "--epochs", 3, "--name", "rect"))
    np.savez(tmp_path / "new.npz", x=digits.test.images.reshape(-1, 8, 8))
    found = json.loads(ok(nnlite("predict", "rect", "new.npz", "--json")).stdout)["rows"]
    correct = np.mean([int(one["class"]) == label for one, label in zip(found, digits.test.labels, strict=True)])
    expected = load_run(tmp_path / "runs" / "digits" / "rect").results.test
    assert 100 * correct == pytest.approx(expected)
    np.savez(tmp_path / "new.npz", x=digits.test.images.reshape(-1, 8, 8), y=digits.test.labels)
    content = json.loads(ok(nnlite("predict", "rect", "new.npz", "--json")).stdout)
    assert (content["accuracy"], len(content["classes"])) == (pytest.approx(expected), 10)
    np.savez(tmp_path / "new.npz", x=digits.test.images.reshape(-1, 8, 8), y=digits.test.labels[:9])
    assert "y: expected a label for each of 500 rows, found (9,)" in one_error(nnlite("predict", "rect", "new.npz"))


def test_a_name_on_several_data_sets_has_to_be_told(nnlite, wine, tmp_path):
    ok(nnlite("train", "--hidden", 4, "--epochs", 1, "--name", "rect"))
    error = one_error(nnlite("predict", "rect", "wine.csv"))
    assert "expected one of digits/rect or wine/rect, found 'rect'" in error
    ok(nnlite("predict", "wine/rect", "wine.csv"))


# --- data


def test_data_says_what_nnlite_makes_of_a_file(nnlite, wine):
    result = ok(nnlite("data", "wine.csv"))
    assert "wine: 90 rows of 3 features, all drawn by seed 0" in result.stdout
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
    assert rows["red"] == ["31", "7", "7", "45"]
    assert rows["all"] == ["62", "14", "14", "90"]
    assert max(map(len, result.stdout.splitlines())) <= 80
    content = json.loads(ok(nnlite("data", "wine.csv", "--json", "--seed", 3)).stdout)
    assert content["counts"] == {"train": [31, 31], "validation": [7, 7], "test": [7, 7]}
    assert content["split"]["seed"] == 3
    assert content["features"] == ["f0", "f1", "f2"]


def test_data_knows_the_data_sets_of_nnlite_too(nnlite):
    result = ok(nnlite("data", "digits"))
    assert "digits: 1,797 images of 8 x 8" in result.stdout


# --- bad files

ROW = "1,2,x\n"
BAD = {
    "no label": ("a.csv", "a,b,kind\n" + ROW * 9, ["--label", "klass"], "expected a column 'klass' of labels"),
    "line 7,031": ("a.csv", "a,b,kind\n" + ROW * 7029 + "1,x\n", [], "line 7,031: expected 3 fields"),
    "text": ("a.csv", "a,b,kind\n" + ROW + "1,red,x\n", [], "line 3, column 'b': expected a number, found 'red'"),
    "one class": ("a.csv", "a,b,kind\n" + ROW * 9, [], "expected two classes or more, found 1"),
    "two rows": ("a.csv", "a,b,kind\n1,2,x\n1,2,y\n", [], "expected 3 samples of each class or more"),
    "one example": ("a.csv", "a,b,kind\n" + ROW * 9 + "1,2,y\n", [], "found 1 of class 'y'"),
    "many columns": ("a.csv", ",".join(f"c{k}" for k in range(100_000)), [], "at most 10,000 columns, found 100,000"),
    "Latin-1": ("a.csv", "a,kind\n1,\xe9\n".encode("latin-1"), [], "expected text in UTF-8, found the byte 0xe9"),
    "empty": ("a.csv", "", [], "expected column names, found nothing"),
    "no npz": ("a.npz", "x", [], "expected an NPZ file"),
    "no such file": ("b.csv", "", [], "or the path of a .npz or .csv file"),
    "bad shares": ("a.csv", "a,b,kind\n" + ROW * 9, ["--split", "0.5,0.5"], "split: expected"),
    "a control code": ("a.csv", "a,b,kind\n1,2,\x1b[2J\n1,2,y\n", [], "a class: expected a text"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("command", ["train", "data"])
def test_a_bad_file_ends_in_one_line_and_leaves_nothing(nnlite, tmp_path, case, command):
    name, content, options, words = BAD[case]
    path = tmp_path / name
    if case != "no such file":
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    given = ["--data", name] if command == "train" else [name]
    error = one_error(nnlite(command, *given, *options))
    assert words in error
    assert error.isprintable()
    assert [one.name for one in tmp_path.iterdir()] == ([] if case == "no such file" else [name])


def test_a_folder_where_a_file_is_meant_and_the_other_way(nnlite, wine, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert "expected a file, found a folder" in one_error(nnlite(*TRAIN, "--data", "folder.csv"))
    assert "expected the file train-images-idx3-ubyte" in one_error(nnlite(*TRAIN, "--data", str(tmp_path)))
    assert "expected a file of rows, found a folder" in one_error(nnlite("predict", "rect", "folder.csv"))


# --- how it does


def test_a_net_is_as_good_as_that_of_scikit_learn_on_the_same_split(wine, nnlite, tmp_path):
    data = load(str(wine))
    (x, y), (x_test, y_test) = data.train.batch(slice(None)), data.test.batch(slice(None))
    other = MLPClassifier((16,), random_state=0, max_iter=2000).fit(x, y).score(x_test, y_test)
    assert load_run(tmp_path / "runs" / "wine" / "rect").results.test >= 100 * other - 100 / len(y_test)


def test_the_labels_may_stand_in_any_column_and_are_found_again(nnlite, tmp_path):
    x, y = blobs(60)
    write_csv(tmp_path / "wine.csv", ["kind", "a", "b", "c"], [[y[k] + 3, *x[k].tolist()] for k in range(60)])
    ok(nnlite(*TRAIN, "--data", "wine.csv", "--label", "kind", "--split", "0.6,0.2,0.2", "--name", "own"))
    run = load_run(tmp_path / "runs" / "wine" / "own")
    assert (run.data.label, run.data.classes, run.data.split.sizes) == ("kind", ("3", "4", "5"), (36, 12, 12))
    found = json.loads(ok(nnlite("attack", "--adversary", "own", "--data", "wine.csv", "--json")).stdout)
    assert (found["examples"], found["accuracy"]["own"][0]) == (12, run.results.test)


def test_phi_is_told_in_the_units_of_a_table(nnlite, wine):
    about = load(wine).description
    result = ok(nnlite("attack", "--adversary", "rect", "--data", "wine.csv", "--phi", "0,0.1"))
    widths = [0.1 * (high - low) for low, high in zip(about.low, about.high, strict=True)]
    words = ", ".join(f"{width:.3g} of f{k}" for k, width in enumerate(widths))
    assert f"phi is a share of each feature's range: 0.1 is {words}\n" in result.stderr
    assert "test rows of wine" in result.stdout


def test_a_run_of_0_1_0_is_known_by_its_name_and_that_is_said_once(nnlite, tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "0.1.0" / "trained", tmp_path / "runs")
    result = ok(nnlite("attack", "--adversary", "rect", "--victim", "rect", "--victim", "earliest", "--first", 5))
    words = "recorded neither data nor checksums: rect, earliest; known by the name and the shape"
    assert result.stderr.count(words) == result.stderr.count("recorded neither") == 1
    ok(nnlite("train", "--hidden", 4, "--epochs", 1, "--name", "new"))
    assert "0.1.0" not in nnlite("attack", "--adversary", "new", "--victim", "new", "--first", 5).stderr
