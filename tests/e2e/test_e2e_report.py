"""The report page in a real browser: by itself with scripts off, and where people meet it, in MLflow's UI.

Chromium is driven over its own protocol by chromedriver; where one of them is missing the tests skip.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Tracker, eventually, let_slack_pass, running_daemon

#: A server, a daemon and a browser start for one test: a minute on a machine that is three times slower.
pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(300)]

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))

#: Loading MLflow's UI takes seconds on a busy machine.
SHOWN_S = 60.0

HOSTILE = ["<script>alert(1)</script>.jpg", "<img src=x onerror=alert(2)>.png", "\u202egpj.exe", 'a&b\'s "c".csv']


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Yield a headless browser with a profile of its own, ended afterwards."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # No sandbox: tests run as root in containers, and show only pages that were made here.
    arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
    ]
    for argument in [*arguments, f"--user-data-dir={tmp_path / 'browser'}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    found.set_page_load_timeout(SHOWN_S)
    yield found
    found.quit()


@pytest.fixture
def daemon(tmp_path: Path, mlflow_server: str) -> Iterator[Daemon]:
    with running_daemon(tmp_path, mlflow_server) as running:
        yield running


@pytest.fixture
def captured(daemon: Daemon, tracker: Tracker, name: str, data: Path) -> str:
    """Return a finished run, the second on a dataset with hostile names, whose page is on it."""
    for each in HOSTILE:
        (data / each).parent.mkdir(exist_ok=True)
        (data / each).write_text(each)
    daemon.place.register(name, data)
    daemon.call("reload")
    daemon.sealed(name, 1)
    let_slack_pass()
    first = tracker.start_run(name)
    tracker.wait_state(first)
    (data / "added later.txt").write_text("new")
    daemon.sealed(name, 2)
    let_slack_pass()
    second = tracker.start_run(name)
    tracker.wait_state(second)
    return second


def page_of(tracker: Tracker, run_id: str, into: Path) -> Path:
    """Return the run's page as the server has it."""
    into.mkdir(exist_ok=True)
    return Path(tracker.client.download_artifacts(run_id, "reprod/report.html", str(into)))


def complaints(browser: Any) -> list[str]:
    """Return what the page's console holds; MLflow's UI asks for what a server without users has not."""
    return [entry["message"] for entry in browser.get_log("browser") if "users/current" not in entry["message"]]


def widest(browser: Any, width: int, scheme: str) -> int:
    """Return by how many pixels a page is wider than a window of ``width``."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    metrics = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})
    return int(metrics["cssContentSize"]["width"]) - width


def test_the_page_reads_with_scripts_off_at_every_width(
    browser: Any, tracker: Tracker, captured: str, tmp_path: Path
) -> None:
    """With scripts disabled a browser shows data, changes, drift and commands, fits 400 to 1600 pixels in both schemes,
    fetches nothing and has no complaint; what hostile names say is text."""
    path = page_of(tracker, captured, tmp_path)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(path.as_uri())
    words = browser.find_element("tag name", "body").text

    assert "Proven" in words
    assert "1 added" in words
    assert "added later.txt" in words
    assert f"reprod verify run:{captured}" in words
    assert "\\u202egpj.exe" in words
    assert "\u202e" not in words
    for each in HOSTILE:
        if each.isprintable():
            assert each in words
    assert [element.tag_name for element in browser.find_elements("css selector", "script, img, iframe, link, a")] == []
    for width in (400, 1000, 1600):
        assert widest(browser, width, "light") <= 0
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    background = "return getComputedStyle(document.body).backgroundColor"
    assert widest(browser, 400, "light") <= 0
    light = browser.execute_script(background)
    assert widest(browser, 400, "dark") <= 0
    assert (light, browser.execute_script(background)) == ("rgb(255, 255, 255)", "rgb(20, 24, 31)")
    assert complaints(browser) == []


def test_the_ui_of_mlflow_shows_page_and_dataset(browser: Any, tracker: Tracker, captured: str, name: str) -> None:
    """In MLflow's own UI the page stands in its frame, the runs table has the dataset with its digest, and each
    artifact of reprod's has a preview."""
    root = f"{tracker.uri}/#/experiments/{tracker.experiment}/runs"
    browser.get(f"{root}/{captured}/artifacts/reprod/report.html")
    frame = eventually(lambda: browser.find_elements("tag name", "iframe"), SHOWN_S, lambda: "the page is framed")[0]
    assert "allow-scripts" in frame.get_attribute("sandbox")
    browser.switch_to.frame(frame)
    eventually(lambda: "Proven" in browser.find_element("tag name", "body").text, SHOWN_S, lambda: "the page is shown")
    browser.switch_to.default_content()
    assert complaints(browser) == []

    digest = tracker.client.get_run(captured).inputs.dataset_inputs[0].dataset.digest
    browser.get(root)
    shown = f"{name} ({digest})"
    eventually(lambda: shown in browser.find_element("tag name", "body").text, SHOWN_S, lambda: f"{shown} in the table")
    kinds = {Path(path).suffix for path in artifacts(tracker, captured)}
    assert kinds <= {".html", ".json", ".txt"}  # what this UI shows; never .diff, .gz or no suffix


def artifacts(tracker: Tracker, run_id: str, path: str | None = None) -> list[str]:
    """Return the paths of all files on a run."""
    found = []
    for each in tracker.client.list_artifacts(run_id, path):
        found += artifacts(tracker, run_id, each.path) if each.is_dir else [each.path]
    return found


def test_a_page_is_written_again_with_the_drift_when_the_run_ends(
    daemon: Daemon, tracker: Tracker, captured: str, data: Path, name: str, tmp_path: Path
) -> None:
    """The page of a running run leaves the drift open; after its end it says what changed meanwhile."""
    first = page_of(tracker, captured, tmp_path / "first").read_text()
    assert "Not judged yet" in first
    let_slack_pass()
    (data / "during.txt").write_text("during")
    daemon.sealed(name, 3)
    let_slack_pass()
    tracker.client.set_terminated(captured)
    eventually(
        lambda: tracker.client.get_run(captured).data.tags.get("reprod.drift") == "appended",
        SHOWN_S,
        lambda: f"the drift is on the run; {daemon.tail()}",
    )
    last = page_of(tracker, captured, tmp_path / "last").read_text()

    assert "Files were added" in last
    assert "during.txt" in last
    assert ", finished" in last
