"""Drive Chromium, Firefox and WebKit, with recorded speech as the microphone input.

Chromium can record from a file. Firefox and WebKit record from a PulseAudio source, so the driver
plays the file to that source.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx2
from playwright.sync_api import sync_playwright
from websockets.sync.client import connect

from infra.local.aws import free_port, wait_for_port

WAIT_SECONDS = 60
MINI_BROWSER = next(Path("/usr/lib").glob("*/webkit2gtk-4.1/MiniBrowser"), None)
PREFERENCES = {
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
}
# Without it, the toolbar of MiniBrowser makes all windows at least 447 px wide.
NARROW_TOOLBAR = "* { margin: 0; border: 0; padding: 0; min-width: 0; font-size: 1px; }"
SCREEN = "2000x1200x24"
SCHEME = "layout.css.prefers-color-scheme.content-override"


def missing_programs(*programs):
    """Return the reason to skip a test if a program is missing, otherwise an empty string."""
    missing = [name for name in programs if not shutil.which(name)]
    return f"not installed: {', '.join(missing)}" if missing else ""


NO_CHROMIUM = missing_programs("chromium")
NO_FIREFOX = missing_programs("firefox-esr", "pulseaudio", "paplay")
NO_WEBKIT = missing_programs("WebKitWebDriver", "Xvfb", "dbus-run-session", "pulseaudio", "paplay")


@contextlib.contextmanager
def running(*command, **options):
    """Run a program. When the context ends, terminate it and all its child processes."""
    with subprocess.Popen(
        command, start_new_session=True, stdin=subprocess.DEVNULL, **options
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)


def until(condition):
    """Call `condition` repeatedly until its result is true, and return the result."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"the condition is still false after {WAIT_SECONDS} s"
        time.sleep(0.1)
    return result


# Chromium


@contextlib.contextmanager
def chromium(speech):
    """Start Chromium with Playwright. Its fake microphone delivers the WAV file `speech` once."""
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={speech}%noloop",
    ]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


class Chromium:
    """The Chromium browser. Its fake microphone delivers the speech when a page records."""

    @classmethod
    @contextlib.contextmanager
    def launch(cls, _folder, speech):
        with chromium(speech) as browser:
            yield cls(browser.new_page())

    def __init__(self, page):
        self._page = page
        self.open = page.goto

    def run(self, expression):
        return self._page.evaluate(expression)

    def click(self, element_id):
        self._page.click(f"#{element_id}")

    def speak(self):
        until(lambda: self.run("document.getElementById('clock').textContent") >= "0:11")


# Firefox and WebKit


@contextlib.contextmanager
def sound_server(folder):
    """Start PulseAudio with a virtual microphone that records the audio that PulseAudio plays.

    Yield the environment variables for programs that use it.
    """
    socket = folder / "sound"
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_SERVER": f"unix:{socket}",
    }
    modules = (
        f"module-native-protocol-unix socket={socket} auth-anonymous=1",
        "module-null-sink sink_name=speech",
        "module-remap-source master=speech.monitor source_name=microphone",
    )
    command = ["pulseaudio", "-n", "--exit-idle-time=-1", "--use-pid-file=no"]
    for module in modules:
        command += ["-L", module]
    with running(*command, env=environment, stderr=subprocess.DEVNULL):
        listen = ["pactl", "set-default-source", "microphone"]
        until(
            lambda: (
                subprocess.run(
                    listen, env=environment, stderr=subprocess.DEVNULL, check=False
                ).returncode
                == 0
            )
        )
        yield environment


class PulseAudioBrowser:
    """A browser whose microphone is a PulseAudio source."""

    def __init__(self, environment, speech):
        self._environment = environment
        self._speech = speech

    def call(self, function, *arguments):
        """Call a JavaScript function. Its arguments and its result are JSON."""
        values = ", ".join(map(json.dumps, arguments))
        result = f"await ({function})({values})"
        return json.loads(self.run(f"(async () => JSON.stringify({result}) ?? null)()") or "null")

    def speak(self):
        until(lambda: self.run("document.getElementById('clock').textContent") >= "0:01")
        with self.speaking() as speech:
            assert speech.wait() == 0

    def speaking(self):
        """Start to play the speech. Return the process that plays it."""
        return subprocess.Popen(["paplay", "--device=speech", self._speech], env=self._environment)


class Firefox(PulseAudioBrowser):
    """Firefox, driven by its built-in WebDriver BiDi server."""

    @classmethod
    @contextlib.contextmanager
    def launch(cls, folder, speech, scheme="light"):
        profile = folder / "profile"
        profile.mkdir(exist_ok=True)
        lines = (
            f"user_pref({json.dumps(name)}, {json.dumps(value)});"
            for name, value in {**PREFERENCES, SCHEME: int(scheme == "light")}.items()
        )
        (profile / "user.js").write_text("\n".join(lines))
        command = [
            "firefox-esr",
            "--headless",
            "--no-remote",
            "--remote-debugging-port=0",
            "--profile",
            str(profile),
        ]
        log = folder / "firefox.log"
        with (
            sound_server(folder) as environment,
            log.open("wb") as log_file,
            running(*command, env=environment, stderr=log_file) as process,
        ):
            address = until(lambda: re.search(r"BiDi listening on (\S+)\n", log.read_text()))[1]
            with connect(f"{address}/session") as socket:
                yield cls(socket, environment, speech, process)

    def __init__(self, socket, environment, speech, process):
        super().__init__(environment, speech)
        self.process = process
        self._socket = socket
        self._sent = 0
        self._send("session.new", capabilities={})
        self._page = self._send("browsingContext.getTree")["contexts"][0]["context"]

    def _send(self, method, **parameters):
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while (response := json.loads(self._socket.recv(WAIT_SECONDS))).get("id") != self._sent:
            pass  # skip events
        assert response["type"] == "success", response
        return response["result"]

    def _evaluate(self, expression):
        target = {"context": self._page}
        return self._send(
            "script.evaluate", expression=expression, target=target, awaitPromise=True
        )["result"]

    def open(self, url):
        self._send("browsingContext.navigate", context=self._page, url=url, wait="complete")

    def run(self, expression):
        return self._evaluate(expression).get("value")

    def resize(self, width, height):
        size = {"width": width, "height": height}
        self._send("browsingContext.setViewport", context=self._page, viewport=size)

    def click(self, element_id):
        element = {
            "sharedId": self._evaluate(f"document.getElementById('{element_id}')")["sharedId"]
        }
        move = {
            "type": "pointerMove",
            "x": 0,
            "y": 0,
            "origin": {"type": "element", "element": element},
        }
        press = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        pointer = {"type": "pointer", "id": "mouse", "actions": [move, *press]}
        self._send("input.performActions", context=self._page, actions=[pointer])


class WebKit(PulseAudioBrowser):
    """WebKitGTK, driven by WebKitWebDriver."""

    @classmethod
    @contextlib.contextmanager
    def launch(cls, folder, speech, scheme="light"):
        number, port = free_port(), free_port()
        style = folder / ".config" / "gtk-3.0" / "gtk.css"
        style.parent.mkdir(parents=True, exist_ok=True)
        style.write_text(NARROW_TOOLBAR)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with (
            sound_server(folder) as environment,
            running("Xvfb", f":{number}", "-screen", "0", SCREEN, "-nolisten", "tcp", **quiet),
        ):
            until(Path(f"/tmp/.X11-unix/X{number}").exists)
            environment |= {
                "DISPLAY": f":{number}",
                "GTK_THEME": "Adwaita:dark" if scheme == "dark" else "Adwaita",
                "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
            }
            command = [
                "dbus-run-session",
                "--",
                "WebKitWebDriver",
                "--host=127.0.0.1",
                f"--port={port}",
            ]
            with (
                running(*command, env=environment, **quiet) as process,
                httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_SECONDS) as driver,
            ):
                wait_for_port(port, process, os.devnull)
                browser = cls(driver, environment, speech)
                yield browser
                browser.quit()

    def __init__(self, driver, environment, speech):
        super().__init__(environment, speech)
        self._driver = driver
        options = {
            "binary": str(MINI_BROWSER),
            "args": ["--automation", "--enable-media-stream=true"],
        }
        wanted = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        self._session = f"/session/{self._send('/session', wanted)['sessionId']}"

    def _send(self, path, body):
        response = self._driver.post(path, json=body)
        assert response.is_success, response.text
        return response.json()["value"]

    def open(self, url):
        self._send(f"{self._session}/url", {"url": url})

    def run(self, expression):
        return self._send(
            f"{self._session}/execute/sync", {"script": f"return {expression}", "args": []}
        )

    def resize(self, width, height):
        self._send(f"{self._session}/window/rect", {"width": width, "height": height})

    def click(self, element_id):
        found = self._send(
            f"{self._session}/element", {"using": "css selector", "value": f"#{element_id}"}
        )
        self._send(f"{self._session}/element/{next(iter(found.values()))}/click", {})

    def quit(self):
        self._driver.delete(self._session)
