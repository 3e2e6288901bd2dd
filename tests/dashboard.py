#!/usr/bin/env python3
"""Uses the dashboard in headless Chromium as people do: of a real job (`clicktide demo`), and of made-up ones for states that
a job is seldom in (examples/dashboard.rs). Prints what it has tried; exits with 1 at the first thing that is not so. Waits are
for conditions, and nothing depends on how fast anything is.

    dashboard.py CHROMIUM CLICKTIDE EXAMPLE FOLDER_FOR_SCREENSHOTS
"""

import re
import signal
import socket
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

CHROMIUM, CLICKTIDE, EXAMPLE, SHOTS = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])
PATIENCE_S = 60
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
TOKEN = "a token of the test's own"

WATCH = """
  window.violations = [];
  document.addEventListener('securitypolicyviolation', (event) => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  for (const name of ['alert', 'confirm', 'prompt']) window[name] = () => violations.push(name);
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def server(program, *arguments, port):
    """A server on that port, killed at the end."""
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
    try:
        until(lambda: answers(port), f"{program} answers", lambda: process.poll() is None)
        yield process
    finally:
        process.kill()
        process.wait()


def demo(port):
    return server(CLICKTIDE, "demo", "--http", f"127.0.0.1:{port}", "--rate", "300", port=port)


def example(port, *arguments):
    return server(EXAMPLE, f"127.0.0.1:{port}", *arguments, port=port)


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def until(condition, what, alive=lambda: True):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if not alive():
            raise AssertionError(f"{what}: it has ended")
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {PATIENCE_S} s")
        time.sleep(0.05)


@contextmanager
def opened(browser, port, hash="", size=DESKTOP, scheme="light", expected=()):
    """The dashboard in a browser of its own; whatever the browser complains of, but for what is expected, is a failure."""
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    context.add_init_script(WATCH)
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    page.goto(f"http://127.0.0.1:{port}/{hash}")
    yield page
    assert page.evaluate("violations") == [], page.evaluate("violations")
    complaints = [text for text in complaints if not any(part in text for part in expected)]
    assert complaints == [], complaints
    context.close()


def shot(page, name):
    # At the top, so that what stays in place while one scrolls is where it belongs.
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=SHOTS / f"{name}.png", full_page=not page.locator("dialog[open]").count())


def has_windows(page):
    expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=PATIENCE_S * 1000)
    expect(page.locator("#top tbody td.page_url").first).to_be_visible(timeout=PATIENCE_S * 1000)


def column(page, name):
    return page.locator(f"#top tbody td.{name}").all_inner_texts()


def numbers(page, name):
    return [float(re.sub(r"[^0-9.]", "", text) or -1) for text in column(page, name)]


def sorted_by(page, name, descending):
    """Waits until the rows are in that order."""
    header = page.locator(f"#top th.{name}")
    expect(header).to_have_attribute("aria-sort", "descending" if descending else "ascending")
    until(lambda: (found := numbers(page, name)) == sorted(found, reverse=descending) and len(found) > 1, f"sorted by {name}")


def next_window(page):
    before = page.locator("#window").inner_text()
    expect(page.locator("#window")).not_to_have_text(before, timeout=PATIENCE_S * 1000)


def no_sideways_scroll(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"


# --- What is tried -----------------------------------------------------------------------------------------------------


def a_real_job(browser, port):
    with opened(browser, port) as page:
        has_windows(page)
        expect(page.locator("#state")).to_contain_text("Running")
        expect(page.locator("#notice")).to_contain_text("demo")
        until(lambda: int(page.locator("[data-total=view_count]").inner_text().replace(",", "")) > 0, "views")
        for rate in ("conversion_rate", "bounce_rate"):
            expect(page.locator(f"[data-total={rate}]")).to_have_text(re.compile(r"^\d+\.\d %$"))
        expect(page.locator("#partitions tbody tr")).to_have_count(3)
        expect(page.locator("#processes tbody tr")).to_have_count(1)
        until(lambda: page.locator("#picture svg line.complete").count() > 0, "open windows are drawn")
        assert page.locator("#picture svg line.watermark-line").count() == 1

        # It goes on by itself, and every curve gets longer.
        points = lambda: page.evaluate("document.querySelector('#top .curve').getAttribute('d').split('L').length")
        before = points()
        next_window(page)
        next_window(page)
        until(lambda: points() > before, "the curve grows")
        shot(page, "demo-light")


def sort_and_search(browser, port):
    with opened(browser, port) as page:
        has_windows(page)
        sorted_by(page, "view_count", True)
        page.locator("#top th.unique_users button").click()
        sorted_by(page, "unique_users", True)
        page.locator("#top th.unique_users button").click()
        sorted_by(page, "unique_users", False)
        next_window(page)
        sorted_by(page, "unique_users", False)
        # With the keyboard alone.
        page.locator("#top th.bounce_rate button").focus()
        page.keyboard.press("Enter")
        sorted_by(page, "bounce_rate", True)

        key = column(page, "page_url")[0]
        page.get_by_label("Search").fill(key)
        until(lambda: (keys := column(page, "page_url")) and all(key in found for found in keys), "what is searched for")
        expect(page.locator("#pages-say")).to_contain_text("matching page")
        page.get_by_label("Search").fill("nothing has this in it")
        expect(page.locator("#top tbody")).to_contain_text("No page has this")
        page.get_by_label("Search").fill("")
        until(lambda: len(column(page, "page_url")) == 20, "all are back")
        page.locator("#more").click()
        until(lambda: len(column(page, "page_url")) > 20, "more of them")
        page.locator("#fewer").click()
        until(lambda: len(column(page, "page_url")) == 20, "fewer of them")


def focus_stays(browser, port):
    with opened(browser, port) as page:
        has_windows(page)
        key = page.locator("#top tbody a").nth(5).get_attribute("href")
        page.locator(f'#top tbody a[href="{key}"]').focus()
        for _ in range(3):
            next_window(page)
            assert page.evaluate("document.activeElement.getAttribute('href')") == key
        page.keyboard.press("Enter")
        expect(page.locator("#detail")).to_be_visible()
        # The first stop of the keyboard leads past the head.
        page.keyboard.press("Escape")
        expect(page.locator("#detail")).not_to_be_visible()
        page.evaluate("document.activeElement.blur()")


def one_page(browser, port):
    with opened(browser, port) as page:
        has_windows(page)
        link = page.locator("#top tbody a").first
        key = link.inner_text()
        link.click()
        dialog = page.locator("#detail")
        expect(dialog).to_be_visible()
        expect(page.locator("#detail-title")).to_have_text(key)
        expect(page.locator("#detail-say")).to_contain_text("Seen in")
        assert page.locator("#detail .chart").count() == 8
        said = page.locator("#detail-say").inner_text()
        expect(page.locator("#detail-say")).not_to_have_text(said, timeout=PATIENCE_S * 1000)
        # What one points at is said.
        page.locator("#detail .chart svg").first.hover()
        expect(page.locator("#detail .chart output").first).to_contain_text(" at ")
        page.locator("#detail summary").click()
        until(lambda: page.locator("#detail-table tbody tr").count() > 1, "the table")
        page.locator("#detail summary").click()
        shot(page, "demo-detail")
        address = page.url
        page.keyboard.press("Escape")
        expect(dialog).not_to_be_visible()
        assert "#" not in page.url.rstrip("#"), page.url
        page.go_forward()
        expect(dialog).to_be_visible()
        page.go_back()
        expect(dialog).not_to_be_visible()
        page.locator("#top tbody a").nth(1).click()
        expect(dialog).to_be_visible()
        page.locator("#detail-close").click()
        expect(dialog).not_to_be_visible()
    with opened(browser, port, hash=address[address.index("#") :], scheme="dark") as page:
        expect(page.locator("#detail-title")).to_have_text(key)
        expect(page.locator("#detail-say")).to_contain_text("Seen in", timeout=PATIENCE_S * 1000)
        shot(page, "demo-detail-dark")
        page.keyboard.press("Escape")
        expect(page.locator("#detail")).not_to_be_visible()
        has_windows(page)
    with opened(browser, port, hash="#page=%2Fnobody%20was%20here") as page:
        expect(page.locator("#detail-say")).to_contain_text("No event in any", timeout=PATIENCE_S * 1000)


def looks(browser, port):
    grounds = set()
    for scheme in ("light", "dark"):
        with opened(browser, port, scheme=scheme) as page:
            has_windows(page)
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            no_sideways_scroll(page)
            if scheme == "dark":
                shot(page, "demo-dark")
    assert len(grounds) == 2, grounds
    with opened(browser, port, size=PHONE) as page:
        has_windows(page)
        no_sideways_scroll(page)
        page.get_by_label("Sort").select_option("click_count desc")
        sorted_by(page, "click_count", True)
        shot(page, "demo-phone")
        page.locator("#top tbody a").first.click()
        expect(page.locator("#detail-say")).to_contain_text("Seen in")
        no_sideways_scroll(page)
        shot(page, "demo-phone-detail")
    # What assistive technology goes by.
    with opened(browser, port) as page:
        has_windows(page)
        assert page.get_by_role("heading", level=1).count() == 1
        for name in ("Pages", "Event time", "Cluster"):
            assert page.get_by_role("heading", name=name, exact=True).count() == 1, name
        for name in ("Pages", "Partitions", "Processes", "Workers"):
            assert page.get_by_role("table", name=name).count() == 1, name
        assert page.get_by_role("columnheader").count() >= 10
        unnamed = page.evaluate("[...document.querySelectorAll('button:not([hidden]), input, select')].filter((one) => !(one.textContent.trim() || one.labels?.length)).length")
        assert unnamed == 0, unnamed


def restarted(browser, port):
    gone = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
    with demo(port) as process, opened(browser, port, expected=gone) as page:
        has_windows(page)
        next_window(page)
        process.send_signal(signal.SIGKILL)
        process.wait()
        expect(page.locator("#lost")).to_be_visible(timeout=PATIENCE_S * 1000)
        expect(page.locator("#lost-says")).to_contain_text("has not answered since")
        expect(page.locator("#lost-says")).to_contain_text("What is shown is from then")
        expect(page.locator("#connection")).to_have_text("no connection")
        assert page.locator("#top tbody tr").count() > 1, "what was there stays"
        shown = page.locator("#window").inner_text()
        shot(page, "gone")
        with demo(port):
            # By then it may have been found again by itself, and the button be gone.
            page.evaluate("document.getElementById('retry').click()")
            expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=PATIENCE_S * 1000)
            expect(page.locator("#lost")).not_to_be_visible()
            expect(page.locator("#window")).not_to_have_text(shown, timeout=PATIENCE_S * 1000)
            has_windows(page)


def many_pages(browser, port):
    with example(port, "many"), opened(browser, port) as page:
        has_windows(page)
        page.locator("#more").click()
        until(lambda: page.locator("#top tbody tr").count() == 100, "a hundred rows")
        page.locator("#more").click()
        until(lambda: page.locator("#top tbody tr").count() == 1000, "a thousand rows")
        expect(page.locator("#pages-say")).to_have_text("1,000 pages of this window")
        next_window(page)
        page.locator("#top th.conversion_count button").click()
        sorted_by(page, "conversion_count", True)
        next_window(page)
        sorted_by(page, "conversion_count", True)
        page.get_by_label("Search").fill("products/0999")
        until(lambda: column(page, "page_url") == ["https://shop.example.com/products/0999"], "one of a thousand")
        expect(page.locator("#pages-say")).to_have_text("1 matching page")
        page.locator("#top tbody a").click()
        expect(page.locator("#detail-title")).to_have_text("https://shop.example.com/products/0999")
        page.keyboard.press("Escape")


def hostile_pages(browser, port):
    with example(port, "hostile"):
        for size, name in ((DESKTOP, "hostile"), (PHONE, "hostile-phone")):
            with opened(browser, port, size=size) as page:
                has_windows(page)
                elements = page.evaluate("new Set([...document.querySelectorAll('*')].map((one) => one.localName)).size")
                next_window(page)
                assert page.locator("#top :is(img, script, b, table table)").count() == 0
                assert page.locator("body script").count() == 0
                keys = "\n".join(column(page, "page_url"))
                for part in ("<img src=x onerror", "<script>document.title", "‹U+202E›gnp.exe", "‹U+0000›", "مرحبا", "__proto__", "javascript:document"):
                    assert part in keys, part
                assert not re.search("[\u202a-\u202e\u0000-\u0008\u200b]", keys)
                # Each of them can be looked at, and is what it says.
                for at in range(12 if size is DESKTOP else 2):
                    link = page.locator("#top tbody a").nth(at)
                    text = link.inner_text()
                    assert link.get_attribute("href").startswith("#page=")
                    page.evaluate("(at) => document.querySelectorAll('#top tbody a')[at].click()", at)
                    expect(page.locator("#detail")).to_be_visible()
                    shown = page.locator("#detail-title").inner_text()
                    expect(page.locator("#detail-say")).to_contain_text("Seen in")
                    if at == 0:
                        assert shown in keys, (shown, text)
                    no_sideways_scroll(page)
                    page.keyboard.press("Escape")
                    expect(page.locator("#detail")).not_to_be_visible()
                assert page.title() == "clicktide-example · Clicktide", page.title()
                assert page.evaluate("new Set([...document.querySelectorAll('*')].map((one) => one.localName)).size") == elements
                no_sideways_scroll(page)
                shot(page, name)


def states(browser, port):
    for state, says in (
        ("lagging", "Partition 3, which worker 3 reads, holds the watermark back"),
        ("replaying", "Replaying"),
        ("starting", "Starting"),
        ("empty", "No event has come yet"),
    ):
        with example(port, state), opened(browser, port) as page:
            expect(page.locator("#state")).to_contain_text(says, timeout=PATIENCE_S * 1000)
            if state == "lagging":
                has_windows(page)
                expect(page.locator("#partitions tbody tr").nth(3)).to_contain_text("slowest")
                expect(page.locator("#partitions tbody tr").nth(5)).to_contain_text("idle")
                assert page.locator("#picture .mark.slow").count() == 1 and page.locator("#picture .mark.idle").count() == 1
                expect(page.locator("#checkpoint-failure")).to_contain_text("No space left", timeout=PATIENCE_S * 1000)
                expect(page.locator("#reasons")).to_contain_text("undecodable")
            if state == "replaying":
                has_windows(page)
            shot(page, state)


def token(browser, port):
    with example(port, "running", TOKEN), opened(browser, port, expected=("401",)) as page:
        login = page.locator("#login")
        expect(login).to_be_visible(timeout=PATIENCE_S * 1000)
        shot(page, "token")
        page.locator("#token").fill("another one")
        page.keyboard.press("Enter")
        expect(page.locator("#login-say")).to_contain_text("not the right one")
        page.keyboard.press("Escape")
        expect(login).to_be_visible()
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        has_windows(page)
        expect(login).not_to_be_visible()
        page.reload()
        has_windows(page)
        assert TOKEN not in page.url and TOKEN not in page.content()
        expect(page.locator("footer a:visible")).to_have_text(["Readiness"])


def main():
    SHOTS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    done = lambda what: print(f"{time.monotonic() - began:5.1f} s  {what.__name__.replace('_', ' ')}", flush=True)
    with sync_playwright() as playwright:
        # As root, as in CI, Chromium has no sandbox; all that it loads is ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        port = free_port()
        with demo(port):
            for what in (a_real_job, sort_and_search, focus_stays, one_page, looks):
                what(browser, port)
                done(what)
        for what in (restarted, many_pages, hostile_pages, states, token):
            what(browser, free_port())
            done(what)
        browser.close()


if __name__ == "__main__":
    try:
        main()
    except Exception:  # whatever it is, it is not as it should be
        traceback.print_exc()
        sys.exit(1)
