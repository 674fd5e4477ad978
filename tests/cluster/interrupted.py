"""A program that is interrupted while it computes; run by test_local.py."""

import time

import dask

from psana_dask import cluster


def slow(number):
    time.sleep(0.1)
    return number


def main():
    with cluster.local(2, threads=1) as client:
        print("computing", flush=True)
        try:
            dask.compute(*[dask.delayed(slow)(number) for number in range(10_000)])
        except KeyboardInterrupt:
            started = time.monotonic()
            while any(client.processing().values()):
                time.sleep(0.05)
            print("cancelled after", time.monotonic() - started)
        print("workers", len(client.scheduler_info()["workers"]))
        print("answer", client.submit(sum, [1, 2]).result(timeout=10))


if __name__ == "__main__":
    main()
