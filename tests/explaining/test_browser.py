"""The page in a real browser: skipped where there is none, or no selenium to steer it."""

import importlib.util
import json
import os
import shutil

import pytest
from explained import facts, written

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
SELENIUM = importlib.util.find_spec("selenium")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)
WIDTHS = (400, 1400)
PAINTED = """
const canvas = document.querySelector(arguments[0] + ' canvas'), size = canvas.width, side = arguments[1];
const pixels = canvas.getContext('2d').getImageData(0, 0, size, size).data, found = [];
for (let row = 0; row < side; row++) for (let column = 0; column < side; column++) {
  const [x, y] = [Math.floor((column + 0.5) * size / side), Math.floor((row + 0.5) * size / side)];
  found.push(255 - pixels[4 * (y * size + x) + 3]);
}
return found;
"""
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser with a profile of its own, which logs what it asks for."""
    missing = [name for name, there in (("chromium", BROWSER), ("chromium-driver", DRIVER), ("selenium", SELENIUM))
               if not there]
    if missing:
        # BROWSER_TESTS=required: where it must be there.
        end = pytest.fail if os.environ.get("BROWSER_TESTS") == "required" else pytest.skip
        end(f"not installed: {', '.join(missing)}")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the page of a case at a width."""

    def open_it(case, width):
        path = tmp_path / "report.html"
        path.write_text(written(case), encoding="utf-8")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
        browser.get_log("performance")
        browser.get(path.as_uri())
        return browser

    return open_it


@pytest.mark.parametrize("case", ["caption", "boxes", "words"])
@pytest.mark.parametrize("width", WIDTHS)
def test_all_panels_are_seen_without_a_complaint_and_without_a_request(opened, case, width):
    driver = opened(case, width)
    assert driver.get_log("browser") == []
    asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in asked) == 1
    boxes = driver.execute_script("""return [...document.querySelectorAll('section')].map(
        (each) => [each.id, each.offsetWidth, each.offsetHeight, each.getBoundingClientRect().right])""")
    assert [name for name, *_ in boxes] == list(facts(case).panels)
    for name, wide, tall, right in boxes:
        assert 300 < wide and 100 < tall and right <= width, name
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_is_cut_off_but_where_one_can_scroll(opened, width):
    driver = opened("boxes", width)
    cut = driver.execute_script("""return [...document.querySelectorAll('p, figcaption, h2, svg, img, dd')].filter(
        (each) => each.scrollWidth > each.clientWidth + 1 && each.clientWidth).map((each) => each.outerHTML)""")
    assert cut == []


def test_pointing_at_a_token_paints_where_it_looks(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    f, driver = facts("caption"), opened("caption", 1400)
    root = driver.find_element("css selector", '[data-look="decoder-looks"]')
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", root)
    choose(driver, root, ".block", "3")
    choose(driver, root, ".head", "1")
    name = "text.blocks.3.attn.probs"
    for text, name, row in (("'caption'", name, 65), ("' small'", f"step.1.{name}", 0)):
        button = next(each for each in root.find_elements("css selector", "button") if each.text == text.strip())
        ActionChains(driver).move_to_element(button).perform()
        weights = f.whole[name].reshape(4, -1, f.whole[name].shape[-1])[1, row, :64]
        wanted = [255 - round(255 * round(0.82 * (1 - float((weight / max(weights)) ** 0.5)), 3)) for weight in weights]
        painted = driver.execute_script(PAINTED, '[data-look="decoder-looks"]', 8)
        assert painted == pytest.approx(wanted, abs=3)
        assert "asks" in button.get_attribute("class")
        tells = root.find_element("css selector", ".tells").text
        assert tells.startswith(f"{text.strip()} looks most at ")
        assert f"{100 * float(weights.sum()):.1f} % of its attention is on the picture" in tells


def test_pointing_at_a_patch_paints_where_it_looks(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    f, driver = facts("caption"), opened("caption", 400)
    root = driver.find_element("css selector", '[data-look="tower-looks"]')
    canvas = root.find_element("css selector", "canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    choose(driver, root, ".block", "1")
    choose(driver, root, ".head", "0")
    cell = canvas.size["width"] / 8
    ActionChains(driver).move_to_element_with_offset(canvas, -round(2.5 * cell), -round(3.5 * cell)).perform()
    weights = f.whole["vision.blocks.1.attn.probs"][0, 0, 0, 1]
    best = int(weights.argmax())
    tells = root.find_element("css selector", ".tells").text
    wanted = f"row 0, column 1 looks most at row {best // 8}, column {best % 8} {100 * float(weights[best]):.1f} %"
    assert tells.startswith(wanted)


def test_choosing_a_token_of_the_answer_shows_its_tables(opened):
    f, driver = facts("caption"), opened("caption", 1400)
    root = driver.find_element("css selector", "#lens .steps")
    choose(driver, root, "select", f.panels["lens"].steps[4]["name"])
    for key in ("lens", "choice"):  # one choice for both
        seen = [each for each in driver.find_elements("css selector", f"#{key} [data-step]") if each.is_displayed()]
        assert [each.get_attribute("data-step") for each in seen] == ["4"]


def test_a_prompt_of_a_script_stays_text(opened):
    driver = opened("words", 1400)
    assert driver.execute_script("return document.querySelectorAll('script:not([type])').length") == 1
    assert "caption <script>alert(1)</script>" in driver.find_element("css selector", "dl").text


def test_dark_and_light_have_grounds_of_their_own(opened):
    driver, grounds = opened("words", 400), []
    for scheme in ("light", "dark"):
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})
        grounds.append(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(int(part) for part in ground[4:-1].split(",")) for ground in grounds)
    assert light > 600 and dark < 150


def choose(driver, root, selector, text):
    """Choose an entry of a list, as a hand would."""
    from selenium.webdriver.support.ui import Select

    Select(root.find_element("css selector", selector)).select_by_visible_text(text)
