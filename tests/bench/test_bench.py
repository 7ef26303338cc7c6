"""The benchmark: whose times are compared, how, and what is refused. No test asserts how long anything takes."""

import json
import multiprocessing
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import strict_cupy
from certificate_times import matmuls_of

from nnlite.attacks import PGD
from nnlite.bench.matmuls import attack_matmuls, step_matmuls
from nnlite.bench.peers import Contestant, contestants, own
from nnlite.bench.process import BenchProcess
from nnlite.bench.race import Timing, run_race
from nnlite.bench.report import race_report
from nnlite.bench.workload import Workload
from nnlite.errors import NnliteError
from nnlite.evaluation.pictures import SETTINGS
from nnlite.evaluation.threads import available_cpus
from nnlite.layers import Dense
from nnlite.methods import METHODS
from nnlite.network import mlp
from nnlite.training.settings import EXAMPLES, Settings

pytestmark = pytest.mark.once

TINY = Settings(hidden=(8,), batch_size=4)
WORK = Workload("step", (TINY,))
SHORT = ("--hidden", 8, "--batch-size", 4, "--rounds", 3, "--threads", 1)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr("nnlite.bench.race.TURN", 0.001)
    monkeypatch.setattr("nnlite.bench.race.REST", 0)


# --- the matrix products


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # forward 2, back to the first layer's output 1, weight gradients 2
        (Settings(hidden=(7,)), 2 + 1 + 2),
        # the clean pass goes on to the inputs, the adversarial one does not; each has its products in the gradient
        (Settings(reg="dgl1", lam=0.01, phi=0.1, hidden=(7,)), (2 + 2) + (2 + 1) + 2 * 2),
    ],
)
def test_the_matmuls_of_a_step_are_counted(settings, expected):
    rng = np.random.default_rng(0)
    net = mlp((5, 7, 3), rng)
    x, y = rng.random((4, 5), dtype=np.float32), rng.integers(0, 3, 4)
    matmuls = step_matmuls(net, x, y, settings)
    assert len(matmuls) == expected
    assert [a.shape[1] for a, _, _ in matmuls[-2:]] == [4, 4]
    assert all((a @ b == out).all() for a, b, out in matmuls)


@pytest.mark.parametrize(("reg", "count"), [("none", 0), ("miyato", 1)])
def test_the_matmuls_of_a_search_for_noise_are_counted(reg, count):
    """Only the search of virtual adversarial training goes back to the inputs."""
    net, rng = mlp((5, 7, 3), np.random.default_rng(0)), np.random.default_rng(1)
    takes = {name: EXAMPLES[name] for name in METHODS[reg].takes}
    matmuls = step_matmuls(net, rng.random((4, 5), np.float32), np.array([0, 1, 2, 0]), Settings(reg=reg, **takes), rng)
    assert [(a.shape, b.shape) for a, b, _ in matmuls].count(((4, 7), (7, 5))) == count


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_matmuls_of_an_attack_are_those_that_it_forms(norm, monkeypatch):
    net = mlp((5, 7, 3), np.random.default_rng(0))
    x, y = np.random.default_rng(1).random((4, 5), dtype=np.float32), np.array([0, 1, 2, 0])
    shapes = [(a.shape, b.shape) for a, b, _ in attack_matmuls(net, x, y, steps=6)]
    formed, forward, backward = [], Dense.forward, Dense.backward

    def seen_forward(layer, x):
        formed.append((x.shape, layer.W.shape))
        return forward(layer, x)

    def seen_backward(layer, x, dy):
        formed.append((dy.shape, layer.W.T.shape))
        return backward(layer, x, dy)

    monkeypatch.setattr(Dense, "forward", seen_forward)
    monkeypatch.setattr(Dense, "backward", seen_backward)
    PGD(norm, steps=6).craft(net, x, y, (0.1,), np.random.default_rng(0))
    assert shapes == formed


# --- figures


def test_quartiles_and_ratios_are_those_of_the_rounds():
    one, other = (
        Timing("one", (0.001, 0.002, 0.003, 0.010, 0.004)),
        Timing("other", (0.001, 0.001, 0.001, 0.001, 1)),
    )
    assert one.quartiles == pytest.approx((2, 3, 4))
    assert one.ratio(other) == pytest.approx(2)  # of 1, 2, 3, 10 and 0.004; the ratio of the medians would be 3
    assert one.ratio(one) == 1


def test_a_report_is_sorted_and_leaves_out_what_is_not_offered():
    timings = [Timing("nnlite", (0.004,) * 3), Timing("gone"), Timing("products", (0.002,) * 3)]
    work = Workload("epoch", (TINY, TINY), 100)
    found = race_report("title", work, timings, threads=1)
    assert [one["name"] for one in found["contestants"]] == ["products", "nnlite", "gone"]
    own = found["contestants"][1]
    assert (own["ms"], own["quartiles"], own["to_products"], own["to_nnlite"]) == (4, [4, 4], 2, 1)
    assert own["per_second"] == pytest.approx(2 * 100 / 0.004)
    assert found["unit"] == "models x images/s"
    assert {value for name, value in found["contestants"][2].items() if name != "name"} == {None}
    assert found["machine"]["versions"]["numpy"] == np.__version__
    assert found["rounds"] == 3


# --- processes


def test_a_contestant_has_a_process_and_processors_of_its_own():
    with BenchProcess("one", "fake_peers:about", WORK, available_cpus()[:1]) as process:
        threads, cpus, setting, number = process.ask("result")[0]
    assert (threads, cpus, setting) == (1, 1, 1)
    assert number != os.getpid()


def test_ctrl_c_while_a_process_starts_leaves_none(monkeypatch):
    @contextmanager
    def interrupted():
        yield
        raise KeyboardInterrupt

    before = multiprocessing.active_children()
    monkeypatch.setattr("nnlite.bench.process.ignore_sigint_in_children", interrupted)
    with pytest.raises(KeyboardInterrupt):
        BenchProcess("one", "fake_peers:about", WORK, available_cpus()[:1])
    assert multiprocessing.active_children() == before


def test_each_contestant_is_timed_once_in_each_round():
    entries = [Contestant("first", "fake_peers:right", WORK), Contestant("second", "fake_peers:right", WORK)]
    first, second = run_race([*entries, Contestant("none", None, WORK)], threads=1, rounds=4)[:2]
    assert len(first.seconds) == len(second.seconds) == 4
    assert (first.difference, second.difference) == (None, 0)


def test_a_contestant_whose_result_is_wrong_is_refused():
    entries = [Contestant("first", "fake_peers:right", WORK), Contestant("second", "fake_peers:wrong", WORK)]
    with pytest.raises(NnliteError, match=r"^second: expected the result of first, found one that differs by 0\.02 of"):
        run_race(entries, threads=1, rounds=3)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ("fake_peers:dies", "its process ended with code 7"),
        ("fake_peers:fails", "ValueError: no such thing"),
        ("fake_peers:absent", "has no attribute 'absent'"),
    ],
)
def test_a_contestant_that_fails_is_named(build, words):
    with pytest.raises(NnliteError, match=f"^broken: .*{words}"):
        run_race([Contestant("broken", build, WORK)], threads=1, rounds=3)


def test_more_threads_than_processors_are_refused():
    with pytest.raises(NnliteError, match=r"threads: expected at most \d+"):
        run_race([Contestant("first", "fake_peers:right", WORK)], threads=len(available_cpus()) + 1, rounds=3)


# --- who takes part


def test_the_exact_gradient_is_timed_beside_the_finite_one():
    exact = Settings(reg="dgl1", lam=0.01, gradient="exact")
    found = {one.name: one.work.settings for one in contestants(Workload("step", (exact,)))}
    assert found["nnlite"] == exact
    assert (found["nnlite, finite"].gradient, found["nnlite, finite"].lam) == ("finite", 0.01)


@pytest.mark.parametrize(
    ("work", "offered"),
    [
        (Workload("step"), True),
        (Workload("step", (Settings(),) * 2), False),
        (Workload("step", (Settings(reg="dgl1", lam=0.01, phi=0.1),)), False),
        (Workload("step", (Settings(multitask=True, gamma=0.5),)), False),
        (Workload("attack"), False),
    ],
)
def test_scikit_learn_offers_plain_training_only(work, offered):
    (found,) = [one for one in contestants(work, ["sklearn"]) if "scikit" in one.name]
    assert (found.build is not None) == offered


def test_names_that_are_not_known_or_not_installed_are_refused(monkeypatch):
    with pytest.raises(
        NnliteError, match="against: expected torch, jax, sklearn, with commas between them, found 'tf'"
    ):
        contestants(WORK, ["tf"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        NnliteError,
        match=r"jax is not installed; .* pip install jax, .* pip install '\.\[bench\]' in a clone of nnlite",
    ):
        contestants(WORK, ["jax"])


def test_peers_are_not_offered_on_the_gpu():
    with pytest.raises(NnliteError, match="on the CPU only"):
        contestants(Workload("step", (Settings(device="gpu"),)), ["sklearn"])


# --- the commands


def test_bench_step_as_json_and_as_a_picture(nnlite, tmp_path):
    result = nnlite("bench", "step", *SHORT, "--json", "--plot", "step.png")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {one["name"] for one in found["contestants"]} == {"nnlite", "products"}
    assert all(0 < one["quartiles"][0] <= one["ms"] <= one["quartiles"][1] for one in found["contestants"])
    assert (tmp_path / "step.png").stat().st_size > 1000
    (tmp_path / "kept.json").write_text(result.stdout, "utf-8")
    assert nnlite("bench", "plot", "kept.json", "kept.json", "--out", "two.svg").exit_code == 0
    assert (tmp_path / "two.svg").read_text("utf-8").count("products") >= 2


ROW = {"name": "a", "ms": 1, "quartiles": [1, 2]}
WRONG = [
    {"title": "t", "contestants": [], "threads": 2},
    {"title": "t", "contestants": [{**ROW, "ms": None}], "threads": 2},
    {"title": "t", "contestants": [ROW], "threads": {}},
    {"title": 3, "contestants": [ROW], "threads": 1},
    {"title": "t" * 10_000, "contestants": [ROW], "threads": 1},
    *({"title": "t", "contestants": [{**ROW, "ms": ms}], "threads": 1} for ms in ("1", True, -1, 10**400)),
    *({"title": "t", "contestants": [{**ROW, "quartiles": q}], "threads": 1} for q in (None, [1], [1, "2"])),
    {"title": "t", "contestants": [1], "threads": 1},
    {"title": "t", "contestants": [{"name": "a"}], "threads": 1},
    [],
]


def test_a_name_of_a_report_is_drawn_as_it_is(nnlite, tmp_path, monkeypatch):
    content = {"title": r"$\frac{1}$", "contestants": [{**ROW, "name": "$^$"}], "threads": 1}
    (tmp_path / "kept.json").write_text(json.dumps(content), "utf-8")
    monkeypatch.setitem(SETTINGS, "svg.fonttype", "none")
    assert nnlite("bench", "plot", "kept.json", "--out", "out.svg").exit_code == 0
    assert {r"$\frac{1}$; 1 thread", "$^$"} <= set(re.findall(r">([^<>]*)</text>", (tmp_path / "out.svg").read_text()))


@pytest.mark.parametrize("title", ["\u6f22", "\x0e\x07\x1b[2J"])
def test_a_name_without_glyphs_is_drawn_and_one_of_control_characters_refused(nnlite, tmp_path, title):
    content = {"title": title, "contestants": [ROW], "threads": 1}
    (tmp_path / "kept.json").write_text(json.dumps(content), "utf-8")
    result = nnlite("bench", "plot", "kept.json", "--out", "out.png")  # a warning would be an error here
    assert result.exit_code == (0 if title.isprintable() else 2)
    assert all(line.isprintable() for line in result.output.splitlines())


def test_a_report_of_a_newer_format_is_refused_with_the_version_that_reads_it(nnlite, tmp_path):
    content = {
        "format": 2,
        "title": "x",
        "contestants": [ROW],
        "threads": 1,
        "machine": {"versions": {"nnlite": "9.1"}},
    }
    (tmp_path / "kept.json").write_text(json.dumps(content), "utf-8")
    result = nnlite("bench", "plot", "kept.json", "--out", "out.png")
    assert (result.exit_code, "found 2; nnlite '9.1' wrote it, and reads it" in result.stderr) == (2, True)


@pytest.mark.parametrize("content", ["{", "[1]", '{"title": "x"}', "\ud800", None, *map(json.dumps, WRONG)])
def test_bench_plot_refuses_what_no_bench_printed(nnlite, tmp_path, content):
    if content is not None:
        (tmp_path / "kept.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    result = nnlite("bench", "plot", "kept.json", "--out", "out.png")
    assert result.exit_code == 2
    assert ("kept.json" in result.stderr) == (content != "[]")
    assert result.stderr.count("\n") == 1


def test_bench_step_tells_the_ratio_to_the_finite_gradient(nnlite):
    words = nnlite("bench", "step", *SHORT, "--gradient", "exact").stdout
    assert words.startswith("dgl1-exact-lam0.01, batch 4; 1 thread, medians of 3 rounds")
    assert "times the step with the finite gradient" in words


@pytest.mark.parametrize("reg", METHODS)
def test_every_method_can_be_timed(reg):
    takes = {name: EXAMPLES[name] for name in METHODS[reg].takes}
    work = Workload("step", (Settings(**{**TINY.__dict__, "reg": reg, **takes}),))
    for build in (own.build, own.matmuls):
        build(work, 1).run(1)


def test_bench_step_goes_through_all_methods(nnlite, monkeypatch):
    monkeypatch.setattr("nnlite.cli.bench.METHODS", ["none", "dgl1"])
    result = nnlite("bench", "step", *SHORT, "--reg", "all", "--against", "sklearn")
    assert result.exit_code == 0
    head, _, rect, dgl1 = [line.split() for line in result.stdout.splitlines() if line][1:5]
    assert head == ["nnlite", "products", "x", "products", "scikit-learn"]
    assert (rect[0], dgl1[0], dgl1[-1]) == ("rect", "dgl1-lam0.01-phi0.1", "-")
    assert float(rect[-1]) > 0


def test_all_methods_as_json_are_drawn_as_they_were_timed(nnlite, monkeypatch, tmp_path):
    monkeypatch.setattr("nnlite.cli.bench.METHODS", ["none", "dgl1"])
    result = nnlite("bench", "step", *SHORT, "--reg", "all", "--json", "--plot", "at-once.svg")
    assert [one["title"] for one in json.loads(result.stdout)] == ["rect", "dgl1-lam0.01-phi0.1"]
    (tmp_path / "all.json").write_text(result.stdout, "utf-8")
    assert nnlite("bench", "plot", "all.json", "--out", "later.svg").exit_code == 0
    assert (tmp_path / "later.svg").read_bytes() == (tmp_path / "at-once.svg").read_bytes()


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("attack", "--rows", 3, "--steps", 2), {"nnlite", "products"}),
        (("attack", "--rows", 3, "--steps", 2, "--noise", "pgd-l2"), {"nnlite", "products"}),
        (("epoch", "--images", 10, "--multitask", "--batch-size", 4), {"nnlite", "products"}),
        (
            ("stack", "--batch-size", 4),
            {"nnlite, stacked", "nnlite, one after another", "nnlite, processes", "products"},
        ),
    ],
)
def test_the_other_workloads(nnlite, command, names):
    name, *options = command
    result = nnlite("bench", name, *options, "--hidden", 8, "--rounds", 3, "--threads", 1, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {one["name"] for one in found["contestants"]} == names
    assert all(one["difference"] < 1e-5 for one in found["contestants"] if one["difference"] is not None)


def test_several_models_come_to_the_same_in_turn_in_processes_and_as_a_stack():
    work = Workload("step", tuple(replace(TINY, reg="dgl1", lam=lam, phi=0.1) for lam in (0.05, 0.2)))
    results = []
    for build in (own.build, own.one_after_another, own.each_a_process):
        runner = build(work, 1)
        runner.run(2)
        results.append(runner.result())
    for stacked, *others in zip(*results, strict=True):
        assert stacked.shape[0] == 2
        assert all(other == pytest.approx(stacked, rel=1e-5, abs=1e-7) for other in others)


def test_a_whole_training_says_nothing_and_trains(monkeypatch):
    trained = []
    monkeypatch.setattr(own, "train_stack", lambda models, data: trained.append((models, len(data[0].train))))
    models = (replace(TINY, epochs=1), replace(TINY, epochs=1, lr=0.2))
    own.build(Workload("train", models, 150), 1).run(2)
    assert trained == [(models, 150)] * 2


def test_a_score_attacks_at_each_size_and_scores_each_victim_but_not_the_adversary(monkeypatch):
    seen = []
    monkeypatch.setattr(own, "evaluate_attack", lambda *given: seen.append(given))
    models = tuple(replace(TINY, seed=seed) for seed in (3, 4, 5))
    work = Workload("score", models, 20, PGD(steps=2), phi=0.1, sizes=4, features=30)
    own.build(work, 1).run(2)
    assert len(seen) == 2
    adversary, victims, samples, attack, phi = seen[0]
    assert [net.features for net in (adversary, *victims.values())] == [30] * 3
    assert len({float(net.layers[0].W[0, 0]) for net in (adversary, *victims.values())}) == 3
    assert (samples.images.shape, attack, phi) == ((20, 30), work.attack, pytest.approx([0.025, 0.05, 0.075, 0.1]))
    assert work.amount == 20


def test_images_have_as_many_features_as_the_workload_says():
    work = Workload("train", (replace(TINY, epochs=1),), 100, features=30)
    assert (work.data().train.images.shape[1], work.net().features, work.batch()[0].shape) == (30, 30, (100, 30))


def test_bench_cost_has_three_sizes_of_each_and_what_each_costs_to_the_first(nnlite, monkeypatch):
    monkeypatch.setattr("nnlite.bench.race.TURN", 0.001)
    monkeypatch.setattr("nnlite.bench.race.REST", 0)
    options = ("--hidden", 8, "--images", 100, "--rounds", 3, "--threads", 1)
    counts = [
        *(("models", count) for count in (1, 2, 4)),
        *(("images", count) for count in (100, 200, 400)),
        *(("epochs", count) for count in (1, 2, 4)),
        *(("features", count) for count in (784, 1568, 3136)),
        *(("phi", count) for count in (1, 2, 4)),
        *(("victims", count) for count in (8, 16, 32)),
        *(("attacked images", count) for count in (100, 200, 400)),
    ]
    rows = json.loads(nnlite("bench", "cost", *options, "--json").stdout)["rows"]
    assert [(row["of"], row["count"]) for row in rows] == counts
    assert all(row["ms_each"] == row["ms"] / row["count"] for row in rows)
    times = [(*one, Timing("", (0.1,))) for one in counts]
    monkeypatch.setattr("nnlite.cli.bench.growth_times", lambda *_, **__: times)
    lines = nnlite("bench", "cost", *options).stdout.splitlines()
    cells = {line[: line.index("  ")]: line.split()[-2:] for line in lines if line[:1].isdigit()}
    assert len(cells) == len(counts)
    assert (cells["8 victims"], cells["32 victims"]) == (["100", "1.00"], ["100", "0.25"])


def test_bench_checkpoint_times_as_many_as_there_are_epochs_and_leaves_nothing(nnlite, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("nnlite.bench.race.write_checkpoint", lambda path, settings, state: written.append(state.epoch))
    options = ("--hidden", 8, "--images", 100, "--rounds", 3, "--threads", 1, "--folder", tmp_path / "disk")
    found = json.loads(nnlite("bench", "checkpoint", *options, "--json").stdout)
    assert written == [1, 2, 3]
    assert 0 < found["share"] < 1  # 3 calls that do nothing
    assert [row["of"] for row in found["rows"]] == ["an epoch", "its checkpoint"]
    assert not list((tmp_path / "disk").iterdir())


def test_bench_checkpoint_prints_the_share(nnlite):
    result = nnlite("bench", "checkpoint", "--hidden", 8, "--images", 100, "--rounds", 3, "--threads", 1)
    assert re.search(r"a checkpoint takes \d+\.\d % of its epoch", result.stdout)


@pytest.mark.parametrize(
    "options", [("--against", "tf"), ("--plot", "x.gif"), ("--threads", 10_000), ("--reg", "all", "--lam", 0.1)]
)
def test_bad_input_ends_in_one_line_and_code_2(nnlite, options):
    result = nnlite("bench", "step", "--hidden", 8, *options)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["step", "epoch", "attack"])
def test_the_workloads_run_on_the_gpu(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    models = tuple(
        Settings(hidden=(8,), batch_size=4, reg="dgl1", lam=lam, phi=0.1, device="gpu") for lam in (0.05, 0.2)
    )
    work = Workload(kind, models[:1] if kind == "attack" else models, 10, PGD(steps=2))
    on_host = replace(work, models=tuple(replace(one, device="cpu") for one in work.models))
    results = []
    for where in (work, on_host):
        own.matmuls(where, 1).run(1)
        runner = own.build(where, 1)
        runner.run(1)
        results.append(runner.result())
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_bench_refuses_the_gpu_without_cupy(nnlite, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = nnlite("bench", "step", "--hidden", 8, "--device", "gpu")
    assert result.exit_code == 2
    assert "pip install" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_products_of_a_certificate_are_those_that_it_forms():
    net, x = mlp((5, 3, 2), np.random.default_rng(0), np.float64), np.random.default_rng(1).random((1, 5))
    found = matmuls_of(net, x, net.predict(x), phi=0.0)  # no ReLU may switch sides, so one pass back decides
    first, last = (layer.W for layer in net.layers if isinstance(layer, Dense))
    on = int((x @ first > 0).sum())
    ranges = [(3, 5)] * 3 + [(2, 3)] * 3  # of magnitudes, centres and radii
    back = [(1, 2), (1, 2), (1, 2), (1, on), (1, on), (1, on), (1, 5), (1, 5)]
    assert [a.shape for a, _, _ in found] == ranges + back
    assert all(type(array) is np.ndarray for one in found for array in one)
    assert found[1][0] == pytest.approx(first.T)
    assert found[4][0] == pytest.approx(last.T)
