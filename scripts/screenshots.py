"""Takes the pictures for screenshots.sh: Chromium without a window, through its driver.

Speaks WebDriver (W3C Recommendation) and, for sizes and colours, the DevTools protocol that the driver
passes on. Needs nothing but the standard library. Ends the browser and the driver in any case.
"""

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# Names and sizes of the screens, in pixels. A phone has its scroll bars over the page.
SCREENS = {"wide": (1600, 1000, False), "phone": (390, 844, True)}
COLOURS = ("light", "dark")
PATIENCE_SECONDS = 60

# What each view must show before its picture is taken, as expressions of the page.
COUNT = "document.querySelectorAll('{0}').length >= {1}"
CLUSTER = [
    COUNT.format("[data-node][data-state=alive]", 5),
    COUNT.format("#ring path", 64),
    COUNT.format("#log [data-event=elected]", 1),
    COUNT.format("#log [data-event=revived]", 1),
    COUNT.format("#lanes rect[data-state=down]", 1),
]
JOBS = [
    COUNT.format('[data-job="{job}"][data-state=uploading]', 1),
    COUNT.format("[data-job][data-state=done]", 3),
    # A rate is known after the second answer.
    "document.querySelector('#job-tables tbody').textContent.includes('/s')",
]
RECEIPT = [
    COUNT.format('[data-job="{done}"][data-state=done] [aria-current]', 1),
    COUNT.format("#job-files li", 5),
    "document.querySelector('#job-receipt').textContent.includes('complete')",
]
EVENTS = [
    COUNT.format("[data-window]", "{windows}"),
    COUNT.format("[data-publisher]", 3),
    COUNT.format("[data-reason]", 1),
    COUNT.format("[data-alert]", 1),
    "Number(document.querySelector('[data-count=rate] dd').textContent.replaceAll(',', '')) > 0",
]


class Browser:
    """A browser with one page, and its driver."""

    def __init__(self, folder: Path):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            # Chromium writes its profile and crash reports there.
            env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self.session = None
        try:
            found = (re.search(r"started successfully on port (\d+)", line) for line in self.driver.stdout)
            port = next(match[1] for match in found if match)
            self.root = f"http://127.0.0.1:{port}/session"
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            options = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}
            started = self.post("", {"capabilities": {"alwaysMatch": options}})
            self.session = started["sessionId"]
        except BaseException:
            self.end()
            raise

    def post(self, path: str, body: dict):
        url = f"{self.root}/{self.session}{path}" if self.session else self.root
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"chromedriver: {path}: {json.load(error)['value']['message']}") from None

    def devtools(self, command: str, **parameters):
        return self.post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script: str):
        return self.post("/execute/sync", {"script": script, "args": []})

    def wait_until(self, expression: str):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.run(f"return Boolean({expression})"):
            if time.monotonic() > deadline:
                raise SystemExit(f"the page does not show within {PATIENCE_SECONDS} s: {expression}")
            time.sleep(0.1)

    def screen(self, width: int, height: int, mobile: bool, colours: str):
        """Sets the screen, and waits until the page is drawn for it."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                      mobile=mobile)
        features = {"prefers-color-scheme": colours, "prefers-reduced-motion": "reduce"}
        self.devtools("Emulation.setEmulatedMedia",
                      features=[{"name": name, "value": value} for name, value in features.items()])
        self.wait_until(f"innerWidth === {width} && matchMedia('(prefers-color-scheme: {colours})').matches")
        # Drawings are made for the width of their box: in the frame after the one that has the new size.
        self.post("/execute/async", {"args": [], "script": """
            const done = arguments[0];
            let frames = 5;
            const next = () => (frames-- ? requestAnimationFrame(next) : done());
            next();"""})

    def picture(self) -> bytes:
        return base64.b64decode(self.devtools("Page.captureScreenshot", format="png")["data"])

    def end(self):
        if self.session:
            request = urllib.request.Request(f"{self.root}/{self.session}", method="DELETE")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(request, timeout=10).close()
        self.driver.terminate()
        self.driver.wait()


def save(picture: bytes, file: Path):
    """Writes a picture, with fewer colours and bytes if a program for that is installed."""
    file.write_bytes(picture)
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--quality=80-100", "--nofs", "--strip",
                        "--output", file, file], check=False)
    if shutil.which("optipng"):
        subprocess.run(["optipng", "-quiet", "-strip", "all", file], check=True)
    print(f"{file}: {file.stat().st_size // 1000} kB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", required=True, help="address of a live page, such as 127.0.0.1:5000")
    parser.add_argument("--job", required=True, help="the job to show; it uploads")
    parser.add_argument("--done", required=True, help="the job whose receipt to show")
    parser.add_argument("--windows", type=int, required=True, help="least number of windows to show")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--folder", type=Path, required=True, help="folder for the files of the browser")
    given = parser.parse_args()
    # The job first: it goes on meanwhile.
    views = {
        "jobs": (f"jobs/{given.job}", [each.replace("{job}", given.job) for each in JOBS]),
        "receipt": (f"jobs/{given.done}", [each.replace("{done}", given.done) for each in RECEIPT]),
        "cluster": ("cluster", CLUSTER),
        "events": ("events/events", [each.replace("{windows}", str(given.windows)) for each in EVENTS]),
    }
    browser = Browser(given.folder)
    try:
        for view, (place, conditions) in views.items():
            browser.post("/url", {"url": "about:blank"})
            browser.post("/url", {"url": f"http://{given.page}/#{place}"})
            for screen, size in SCREENS.items():
                for colours in COLOURS:
                    browser.screen(*size, colours)
                    for condition in conditions:
                        browser.wait_until(condition)
                    # The browser may have scrolled to the element that the address names. On a phone, the
                    # chosen job stands below the list.
                    below = view == "receipt" and screen == "phone"
                    browser.run("document.getElementById('job').scrollIntoView()" if below else "scrollTo(0, 0)")
                    save(browser.picture(), given.out / f"{view}-{colours}-{screen}.png")
    finally:
        browser.end()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
main()
