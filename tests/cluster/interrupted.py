"""A program that is interrupted while it computes; run by test_local.py."""

import threading
import time

import dask

from psana_dask import cluster


def slow(number):
    time.sleep(0.1)
    return number


def say_when_it_runs(client):
    while sum(map(len, client.who_has().values())) < 3:  # results are there
        time.sleep(0.05)
    print("computing", flush=True)


def main():
    with cluster.local(2, threads=1) as client:
        watch = threading.Thread(target=say_when_it_runs, args=(client,), daemon=True)
        watch.start()
        try:
            dask.compute(*[dask.delayed(slow)(number) for number in range(2000)])
        except KeyboardInterrupt:
            started = time.monotonic()
            while any(client.processing().values()):
                time.sleep(0.05)
            print("cancelled after", time.monotonic() - started)
        print("workers", len(client.scheduler_info()["workers"]))
        print("answer", client.submit(sum, [1, 2]).result(timeout=10))


if __name__ == "__main__":
    main()
