"""Live plots: how long it takes from an event to its picture in a browser.

    python benchmarks/bench_monitor.py [--rounds N] [--seconds N] [--rate N] [--updates N]

One process sends events over ZMQ, this one reads, calibrates and serves the page, a headless chromium shows
it. "from event to picture" is the time from the moment an event is sent until the browser says that it
painted the picture of it (and the answer came back). The limit is 0.5 s at 10 updates a second. Cases: a
camera of 512 x 512 pixels with a waveform and two numbers, pictures of the latest event; an ePix10ka2M (2.3
million pixels), calibrated and assembled, with the mean of all events beside it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import numpy as np

import psana_dask
from psana_dask import simulate
from psana_dask.run import Run
from psana_dask.simulate import Detector, RunSpec

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip

SEND = """
import itertools, json, struct, sys, time
import psana_dask
from psana_dask.model import Service
from psana_dask.stream.datagrams import header_xtc2
from psana_dask.stream.replay import moments
from psana_dask.stream.sending import Sender, serve

class Noting(Sender):
    def events(self, events):
        super().events(events)
        words = [header_xtc2(event[0].data).timestamp for event in events]
        print(json.dumps([time.monotonic(), words]), file=log, flush=True)

def later(moment, turn):
    "The same event, so many turns of 1000 seconds later: each event is sent once."
    dgrams = []
    for dgram in moment.dgrams:
        data = bytearray(dgram.data)
        struct.pack_into("<I", data, 4, struct.unpack_from("<I", data, 4)[0] + 1000 * turn)
        dgrams.append(dgram._replace(data=data))
    return moment._replace(dgrams=dgrams)

def endless(ready):
    yield from ready
    events = [m for m in ready if m.service == Service.L1_ACCEPT]
    for turn in itertools.count(1):
        yield from (later(m, turn) for m in events)

run = psana_dask.open(sys.argv[1])
ready = list(moments(run._recording))  # from memory: the disk is not what is measured
ready = ready[: 1 + max(k for k, m in enumerate(ready) if m.service == Service.L1_ACCEPT)]
with open(sys.argv[3], "w") as log, Noting(sys.argv[2], run.format, "pub") as sender:
    serve(sender, endless(ready), float(sys.argv[4]))
"""


def camera(folder):
    detectors = (
        Detector(name="cam", kind="camera", shape=(512, 512)),
        Detector(name="wave", kind="waveform", stream=1, shape=(1000,)),
        Detector(name="gmd", kind="gmd", stream=1),
    )
    return simulate.write(RunSpec(events=240, detectors=detectors, smalldata=False), folder).folder, {}


def epix(folder):
    detector = Detector(name="epix", kind="epix10ka", segments=16, shape=(352, 384))
    rng = np.random.default_rng(0)
    pedestals = rng.normal(1000, 3, (7, 16, 352, 384)).astype(np.float32)
    written = simulate.write(RunSpec(events=60, detectors=(detector,), smalldata=False), folder)
    return written.folder, {"pedestals": pedestals}


CASES = {
    "camera 512x512, waveform, numbers": (camera, ["cam.raw", "wave", "gmd"], {"means": False}),
    "ePix10ka2M image, and mean": (epix, ["epix"], {}),
}


def measured(browser, folder, constants, names, choices, given, port, log):
    """Return the seconds from event to picture, the pictures a second and what was dropped."""
    painted = []
    url = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, "-c", SEND, str(folder), url, log, str(given.rate)]
    with subprocess.Popen(command) as sending:
        try:
            more = {"calib": constants or None, "updates": given.updates, "timeout": 60, **choices}
            with psana_dask.plot.live(url, names, **more) as live:
                live._choices = replace(
                    live._choices, painted=lambda s, moment: painted.append((moment, last_word(s)))
                )
                tab = browser.new_page(viewport={"width": 1600, "height": 1000})
                tab.goto(live.url)
                tab.locator(".state.live").wait_for(timeout=120_000)
                tab.wait_for_timeout(5000)  # kernels are compiled, constants looked up, figures drawn
                begin, before = time.monotonic(), replace(live.counters)
                tab.wait_for_timeout(1000 * given.seconds)
                counters, end = live.counters, time.monotonic()
                tab.close()
        finally:
            sending.kill()
    with open(log) as file:
        sent = {word: moment for moment, words in map(json.loads, file) for word in words}
    delays = [at - sent[word] for at, word in painted if begin <= at <= end]
    lost = counters.dropped + counters.missed - before.dropped - before.missed
    came = counters.received + counters.missed - before.received - before.missed
    return delays, len(delays) / (end - begin), lost / max(1, came)


def last_word(snapshot):
    return int(Run(snapshot.view).events.timestamp[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=120, help="events a second")
    parser.add_argument("--updates", type=float, default=10, help="pictures a second, at most")
    given = parser.parse_args()
    if CHROMIUM is None:
        print("no chromium: nothing is measured")
        return
    from playwright.sync_api import sync_playwright

    print(f"{given.rate:g} events a second, at most {given.updates:g} pictures a second")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as temporary:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        for number, (case, (make, names, choices)) in enumerate(CASES.items()):
            folder, constants = make(os.path.join(temporary, str(number)))
            for turn in range(given.rounds):
                port = 20_000 + (os.getpid() * 7 + number * 100 + turn * 2) % 20_000
                log = os.path.join(temporary, "sent.txt")
                delays, rate, lost = measured(browser, folder, constants, names, choices, given, port, log)
                middle, worst = np.percentile(delays, [50, 95]) if delays else (np.nan, np.nan)
                print(
                    f"{case:34} median {1000 * middle:4.0f} ms, 95 % within {1000 * worst:4.0f} ms, "
                    f"{rate:4.1f} pictures/s, {100 * lost:3.0f} % of the events dropped; "
                    f"load {os.getloadavg()[0]:.1f}"
                )
            shutil.rmtree(folder)
        browser.close()


if __name__ == "__main__":
    main()
