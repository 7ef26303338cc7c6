"""The page of the explorer in a real browser: its arithmetic against the engine's, its controls, and its peace."""

import re
import shutil

import numpy as np
import pytest

from nnlite.attacks import input_gradient, perturb
from nnlite.datasets.loading import load
from nnlite.evaluation.explorer import ExplorerOptions, explorer_page
from nnlite.init import generator
from nnlite.inputs import UNIT
from nnlite.network import mlp
from nnlite.training.loop import train
from nnlite.training.settings import Settings

webdriver = pytest.importorskip("selenium.webdriver", reason="the extra browser is missing")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no chromium, or no chromedriver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of the driver
]
HOSTILE = "</script><script>document.title = 'ours'</script><img src=x onerror=\"document.title = 'ours'\">\x1b[31m"


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window; it may reach nothing but files."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--proxy-server=127.0.0.1:9"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_window_size(1100, 1500)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def nets(trained):
    """Two nets of the digits."""
    data, rect = trained
    settings = Settings(hidden=(32,), epochs=5, reg="dgl1", lam=0.01, phi=0.1)
    return data, {"rect": rect, "dgl1": train(settings, data).net}


@pytest.fixture(scope="module")
def written(nets, tmp_path_factory):
    """The page of both nets, and which test images it shows."""
    data, both = nets
    path = tmp_path_factory.mktemp("page") / "page.html"
    options = ExplorerOptions(images=10, examples=10)
    path.write_text(explorer_page(both, data, options), "utf-8")
    return path


@pytest.fixture
def page(browser, written):
    """The page, opened anew; at the end it has said nothing, and asked for nothing."""
    yield opened(browser, written)
    assert quiet(browser, written)


def opened(browser, path):
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    return browser


def quiet(browser, path):
    """Whether the console is empty, and nothing but the page itself was asked for."""
    assert not browser.get_log("browser")
    sent = [
        entry["message"] for entry in browser.get_log("performance") if "Network.requestWillBeSent" in entry["message"]
    ]
    return all(path.as_uri() in message for message in sent)


def say(browser):
    return browser.find_element("id", "says").text


def move(browser, slider, value):
    script = """const slider = document.getElementById(arguments[0]);
      slider.value = arguments[1];
      slider.dispatchEvent(new Event("input"));"""
    browser.execute_script(script, slider, value)


def test_logits_and_gradients_are_those_of_the_engine(page, nets):
    data, both = nets
    rows = page.execute_script("return content.rows")
    x, y = data.test[np.array(rows)].batch(slice(None), np.float64)
    for k, net in enumerate(net.astype(np.float64) for net in both.values()):
        expected = net.run(x, y)
        script = f"return content.labels.map((y, i) => Array.from(forward(nets[{k}], sample(i)).logits))"
        np.testing.assert_allclose(page.execute_script(script), expected.logits, rtol=0, atol=1e-5)
        run = f"forward(nets[{k}], sample(i))"
        script = f"return content.labels.map((y, i) => Array.from(inputGradient(nets[{k}], {run}, y)))"
        np.testing.assert_allclose(page.execute_script(script), expected.dx, rtol=0, atol=1e-5)


def test_the_slider_changes_the_answer_where_the_engine_says_so(page, nets):
    data, both = nets
    x, y = data.test[np.array(page.execute_script("return content.rows"))].batch(slice(None), np.float64)
    exact = {name: net.astype(np.float64) for name, net in both.items()}
    slopes = {name: input_gradient(net, x, y) for name, net in exact.items()}
    seen = set()
    for k in range(len(x)):
        page.execute_script(f"choose({k})")
        for size in (0.0, 0.05, 0.1, 0.15, 0.2):
            move(page, "phi", size)
            says = say(page)
            for name, net in exact.items():
                answer = int(net.predict(perturb(x[k], np.sign(slopes[name][k]), size, UNIT)[None])[0])
                seen.add(answer == y[k])
                assert re.search(rf"{name} (still )?reads an? {answer} \(", says), says
    assert seen == {True, False}


def test_it_says_something_before_anyone_moves_anything(page):
    assert "rect reads" in say(page)
    assert "with noise of at most 0.1 on each pixel" in say(page)


def test_the_keyboard_moves_the_noise_and_draws(page):
    from selenium.webdriver.common.keys import Keys

    before = say(page)
    page.find_element("id", "phi").send_keys(Keys.HOME)
    assert "without noise" in say(page)
    page.find_element("id", "own").click()
    page.find_element("id", "pad").send_keys(Keys.ARROW_DOWN, " ")
    assert say(page).startswith("Your own image, taken for")
    page.find_element("css selector", "#images button").click()
    assert say(page).startswith("This ")
    assert before != say(page)


def test_every_control_has_a_name(page):
    script = """return [...document.querySelectorAll("input, select, button, canvas[tabindex], svg")].filter(one =>
      !(one.textContent.trim() || one.getAttribute("aria-label") || (one.labels && one.labels.length))).length"""
    assert page.execute_script(script) == 0


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_into_narrow_and_wide_windows(page, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_names_are_text_whatever_is_in_them(browser, tmp_path):
    kind = HOSTILE.replace('"', "'").removesuffix("\x1b[31m")  # a file with control codes is refused
    lines = ["a,b,kind", *(f"{k},{k % 7},{'xy'[k % 2]}{kind}" for k in range(40))]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    data = load(tmp_path / "own.csv")
    net = mlp((2, 4, 2), generator(0, "weights"))
    path = tmp_path / "page.html"
    path.write_text(explorer_page({HOSTILE: net}, data, ExplorerOptions(images=4, examples=4)), "utf-8")
    opened(browser, path)
    assert browser.title == "Move the noise: own"
    assert "</script><script>" in browser.find_element("id", "nets").text
    assert quiet(browser, path)


def test_a_table_has_a_slider_for_each_feature(browser, tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{10 * b:.3f},{'low' if a < 0.5 else 'high'}" for a, b in rng.random((60, 2))]
    (tmp_path / "own.csv").write_text("\n".join(["width,height,kind", *rows]))
    data = load(tmp_path / "own.csv")
    net = train(Settings(data="own", hidden=(8,), epochs=30, batch_size=5), data).net
    path = tmp_path / "page.html"
    path.write_text(explorer_page({"net": net}, data, ExplorerOptions(images=4, examples=4)), "utf-8")
    opened(browser, path)
    move(browser, "phi", 0)
    for value, answer in ((1, "high"), (0, "low")):
        move(browser, "feature-0", value)
        assert f"net reads {answer}" in say(browser)
    assert quiet(browser, path)
