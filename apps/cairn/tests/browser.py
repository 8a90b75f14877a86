"""A headless Chromium, driven through its own debugging protocol over a pipe: no package is needed but the browser."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find():
    """The browser's path, or None. CHROMIUM in the environment wins."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


# What media queries see: a mouse that hovers, or a finger. A headless browser has neither otherwise.
POINTER = {False: "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
           True: "primaryHoverType=1,availableHoverTypes=1,primaryPointerType=2,availablePointerTypes=2"}


class Broken(Exception):
    pass


class Browser:
    def __init__(self, path, touch=False):
        self.folder = tempfile.TemporaryDirectory(prefix="cairn-page-", ignore_cleanup_errors=True)
        to_browser, self.write_to = os.pipe()
        self.read_from, from_browser = os.pipe()
        command = [path, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
                   "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-sync",
                   "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                   "--force-color-profile=srgb", f"--blink-settings={POINTER[touch]}",
                   f"--user-data-dir={self.folder.name}", "about:blank"]

        def pipes():  # the protocol's: 3 is read by the browser, 4 written
            os.dup2(to_browser, 103)
            os.dup2(from_browser, 104)
            os.dup2(103, 3)
            os.dup2(104, 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        self.process = subprocess.Popen(command, preexec_fn=pipes, close_fds=False, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.ids = itertools.count(1)
        self.buffer = b""
        self.answers = {}
        self.listeners = {}

    def send(self, method, params=None, session=None):
        message = {"id": next(self.ids), "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        return message["id"]

    def call(self, method, params=None, session=None, timeout=60):
        wanted = self.send(method, params, session)
        deadline = time.monotonic() + timeout
        while wanted not in self.answers:
            if not self.pump(deadline - time.monotonic()):
                raise Broken(f"the browser did not answer {method} within {timeout} s")
        answer = self.answers.pop(wanted)
        if "error" in answer:
            raise Broken(f"{method}: {answer['error']}")
        return answer["result"]

    def pump(self, timeout):
        """Reads what the browser says for at most this long; False when it said nothing."""
        if b"\0" not in self.buffer:
            if timeout <= 0 or not select.select([self.read_from], [], [], timeout)[0]:
                return False
            data = os.read(self.read_from, 1 << 20)
            if not data:
                raise Broken("the browser has ended")
            self.buffer += data
        *messages, self.buffer = self.buffer.split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.answers[message["id"]] = message
            elif message.get("sessionId") in self.listeners:
                self.listeners[message["sessionId"]](message["method"], message["params"])
        return True

    def open(self, url, **options):
        return Page(self, url, **options)

    def close(self):
        try:
            self.call("Browser.close", timeout=10)
        except Broken:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.write_to)
        os.close(self.read_from)
        self.folder.cleanup()


# name: (key code, text)
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), "ArrowUp": (38, ""), "Backspace": (8, "")}


class Page:
    """One tab in its own profile. complaints collects errors, refused loads and warnings of the page."""

    def __init__(self, browser, url, width=1280, height=800, dark=False, mobile=False, reduced=False, scale=1):
        self.browser = browser
        self.complaints = []
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        self.target = browser.call("Target.createTarget", {"url": "about:blank", "browserContextId": self.context})["targetId"]
        self.session = browser.call("Target.attachToTarget", {"targetId": self.target, "flatten": True})["sessionId"]
        browser.listeners[self.session] = self.hear
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")
        self.size(width, height, mobile, scale)
        self.media(dark, reduced)
        self.call("Emulation.setFocusEmulationEnabled", {"enabled": True})  # else :focus depends on which window the browser thinks is in front
        self.go(url)

    def call(self, method, params=None, timeout=60):
        return self.browser.call(method, params, self.session, timeout)

    def hear(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} ({params['entry'].get('url', '')})")

    def go(self, url):
        self.call("Page.navigate", {"url": url})
        self.wait("document.readyState === 'complete'")

    def reload(self):
        self.js("window.leaving = true")
        self.call("Page.reload")
        self.wait("!window.leaving && document.readyState === 'complete'")

    def size(self, width, height, mobile=False, scale=1):
        self.call("Emulation.setDeviceMetricsOverride",
                  {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile})
        self.call("Emulation.setTouchEmulationEnabled", {"enabled": mobile})

    def media(self, dark=False, reduced=False):
        self.call("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"}]})

    def js(self, code):
        """The value of an expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", {"expression": code, "awaitPromise": True, "returnByValue": True,
                                                "userGesture": True})
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise Broken(f"{code[:200]}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def wait(self, condition, timeout=20):
        """Until an expression is true; its value. A machine that stood still for a while does not use the time up."""
        left = timeout
        while True:
            start = time.monotonic()
            value = self.js(f"((value) => value instanceof Node || value)({condition})")
            if value:
                return value
            if left < 0:
                raise Broken(f"not within {timeout} s: {condition}\non the page: {self.js('document.body.innerText')[:1500]}")
            self.browser.pump(0.03)
            left -= min(time.monotonic() - start, 0.5)

    def click(self, selector):
        x, y = self.js(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'nearest'}}); "
                       "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1})

    def type(self, text):
        self.call("Input.insertText", {"text": text})

    def key(self, name, ctrl=False, shift=False):
        code, text = KEYS.get(name, (ord(name.upper()[0]), name))
        modifiers = (2 if ctrl else 0) + (8 if shift else 0)
        event = {"key": name, "code": name if name in KEYS else "", "windowsVirtualKeyCode": code, "modifiers": modifiers}
        down = dict(event, type="keyDown" if text and not ctrl else "rawKeyDown")
        if text and not ctrl:
            down["text"] = text
        self.call("Input.dispatchKeyEvent", down)
        self.call("Input.dispatchKeyEvent", dict(event, type="keyUp"))

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", {"format": "png"})["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        self.browser.listeners.pop(self.session, None)
        self.browser.call("Target.closeTarget", {"targetId": self.target})
        self.browser.call("Target.disposeBrowserContext", {"browserContextId": self.context})
