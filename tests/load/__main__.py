"""`python -m tests.load`: load on a real service, on the loopback interface, with targets for two cores.

The last line has each figure as `name value`. The exit code is 0 if every target was met.
"""

import argparse
import asyncio
import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from tests.conftest import ROOT, Stack, shaded_ball, start_stack, stop_stack

TARGETS = {
    "jobs_lost": 0.0,
    "get_job_p99_ms": 20.0,
    "list_p99_ms": 50.0,
    "sse_clients_lost": 0.0,
    "latency_beside_training_ratio": 2.0,
    "four_workers_slowdown": 1.25,
    "api_memory_growth_mb": 20.0,
    "accept_over_floor_p50_ms": 15.0,
}
TRAINING = {"dataset": {"n_shapes": 50}, "config": {"epochs": 100_000}}
ACCEPTED, LATENCIES, LOOKS, CLIENTS, FOLLOWED_S, ALONE_S, BATCH = 150, 40, 2_000, 200, 15.0, 10.0, 60

Figures = dict[str, float]


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="how many are queued at once")
    count = parser.parse_args().jobs
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        stack = start_stack(Path(folder) / "data")
        try:
            for measure in (accepting, beside_a_training, following, throughput, lambda each: queued(each, count)):
                for name, value in measure(stack).items():
                    figures[name] = value
                    limit = TARGETS.get(name)
                    verdict = "" if limit is None else f"  (target <= {limit:g}: {'met' if value <= limit else 'MISSED'})"
                    print(f"{name:36} {value:10.3f}{verdict}", flush=True)
        finally:
            stop_stack(stack)
    print(", ".join(f"{name} {value:.6g}" for name, value in figures.items()))
    sys.exit(any(figures[name] > limit for name, limit in TARGETS.items()))


def accepting(stack: Stack) -> Figures:
    """A job with a 256 x 256 PNG, until its 202, beside the same form read by a plain FastAPI application, in turn."""
    image = shaded_ball(256)
    ours, floor = [], []
    with _floor_server() as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as plain:
        for _ in range(ACCEPTED):
            floor.append(_seconds(lambda: plain.post("/floor", files={"image": image})))
            job = []
            ours.append(_seconds(lambda: job.append(_submit(stack.client, image, size="32"))))  # noqa: B023
            stack.ended(job[0])  # so that its work does not fall into the next measurement
    return {
        "accept_p50_ms": _percentile(ours, 50),
        "floor_p50_ms": _percentile(floor, 50),
        "accept_over_floor_p50_ms": _percentile(ours, 50) - _percentile(floor, 50),
    }


def beside_a_training(stack: Stack) -> Figures:
    """Reconstructions one after another, on an idle machine and while a training runs: who goes first on the same cores.

    The training makes `training_epochs_per_s` of its own, and `training_epochs_beside_pictures_per_s` meanwhile.
    """
    image = shaded_ball(256)

    def p50() -> float:
        return _percentile([_seconds(lambda: _reconstruct(stack.client, image)) for _ in range(LATENCIES)], 50)

    p50()
    idle = p50()
    with _training(stack) as job_id:
        beside = p50()
        shared = _epochs_per_s(stack, job_id, p50)
        alone = _epochs_per_s(stack, job_id, lambda: time.sleep(ALONE_S))
    return {
        "latency_idle_p50_ms": idle,
        "latency_beside_training_p50_ms": beside,
        "latency_beside_training_ratio": beside / idle,
        "training_epochs_per_s": alone,
        "training_epochs_beside_pictures_per_s": shared,
    }


def _epochs_per_s(stack: Stack, job_id: str, meanwhile: Callable[[], object]) -> float:
    """Of a running training."""

    def epoch() -> int:
        return int(stack.client.get(f"/v1/jobs/{job_id}").raise_for_status().json()["progress"]["step"])

    before, started = epoch(), time.monotonic()
    meanwhile()
    return (epoch() - before) / (time.monotonic() - started)


def following(stack: Stack) -> Figures:
    """Two hundred clients follow one training at once: all of them see all of its events."""
    with _training(stack) as job_id:
        seen = asyncio.run(_follow(stack, job_id))
    common = set.union(*(set(each) for each in seen))
    # what arrived in the last second may still be on its way to some
    latest = max(moment for each in seen for moment in each.values()) - 1
    settled = {event for event in common if min(each[event] for each in seen if event in each) < latest}
    lags = [
        max(each[event] for each in seen) - min(each[event] for each in seen)
        for event in settled
        if all(event in each for each in seen)
    ]
    return {
        "sse_clients": len(seen),
        "sse_clients_lost": sum(not settled <= set(each) for each in seen),
        "sse_events": len(settled),
        "sse_spread_p99_ms": _percentile(lags, 99),
    }


async def _follow(stack: Stack, job_id: str) -> list[dict[str, float]]:
    """When each client saw each event."""

    async def one(client: httpx.AsyncClient) -> dict[str, float]:
        seen: dict[str, float] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FOLLOWED_S), client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("id:"):
                        seen[line[3:].strip()] = time.monotonic()
        return seen

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=stack.client.base_url, timeout=None, limits=limits, trust_env=False) as client:
        return await asyncio.gather(*(one(client) for _ in range(CLIENTS)))


def throughput(stack: Stack) -> Figures:
    """Reconstructions per second of six views of 256 x 256, with 1, 2 and 4 workers on the same cores.

    `four_workers_slowdown` is how many times as long a picture takes with four workers as with one: on few cores more workers
    gain nothing, and by the rule of docs/cores.md they lose little.
    """
    image, found = shaded_ball(256), {}
    more: list[subprocess.Popen[bytes]] = []
    try:
        for workers in (1, 2, 4):
            more += [_worker(stack) for _ in range(workers - 1 - len(more))]
            if more:
                _reconstruct(stack.client, image)
                time.sleep(15)  # until torch is loaded in all of them
            started = time.monotonic()
            jobs = [_submit(stack.client, image) for _ in range(BATCH)]
            for job_id in jobs:
                stack.ended(job_id, 300)
            found[f"reconstructions_per_s_{workers}_workers"] = BATCH / (time.monotonic() - started)
    finally:
        for process in more:
            process.terminate()
        for process in more:
            process.wait(30)
    one, four = (found[f"reconstructions_per_s_{workers}_workers"] for workers in (1, 4))
    return {**found, "four_workers_slowdown": one / four}


def queued(stack: Stack, count: int) -> Figures:
    """Thousands of queued trainings: none is lost, and neither a look at one nor the list becomes slow; nor does the API grow."""
    client, api = stack.client, _api(stack)
    with _training(stack):
        plan = {"dataset": {"n_shapes": 1}, "config": {"epochs": 1}}
        before = api.memory_info().rss
        started = time.monotonic()
        jobs = [client.post("/v1/trainings", json=plan).raise_for_status().json()["id"] for _ in range(count)]
        rate = count / (time.monotonic() - started)
        draw = random.Random(0)
        looks = [_seconds(lambda: client.get(f"/v1/jobs/{draw.choice(jobs)}").raise_for_status()) for _ in range(LOOKS)]
        lists = [_seconds(lambda: client.get("/v1/jobs").raise_for_status()) for _ in range(LOOKS // 10)]
        growth = (api.memory_info().rss - before) / 1e6
        listed = _listed(client)
        for job_id in jobs:
            client.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    ended = _listed(client)
    return {
        "jobs_queued": count,
        "jobs_queued_per_s": rate,
        "jobs_lost": sum(job_id not in listed or ended.get(job_id) != "cancelled" for job_id in jobs),
        "get_job_p99_ms": _percentile(looks, 99),
        "list_p99_ms": _percentile(lists, 99),
        "api_memory_growth_mb": growth,
    }


def _listed(client: httpx.Client) -> dict[str, str]:
    found: dict[str, str] = {}
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/jobs", params={"limit": 200, **cursor}).raise_for_status().json()
        found |= {job["id"]: job["status"] for job in page["items"]}
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def _submit(client: httpx.Client, image: bytes, **fields: str) -> str:
    return str(client.post("/v1/reconstructions", files={"image": image}, data=fields).raise_for_status().json()["id"])


def _reconstruct(client: httpx.Client, image: bytes) -> None:
    job: dict[str, Any] = client.post("/v1/reconstructions", files={"image": image}, headers={"Prefer": "wait=60"}).json()
    assert job["status"] == "succeeded", job


@contextlib.contextmanager
def _training(stack: Stack) -> Iterator[str]:
    """A training at its work."""
    job_id = str(stack.client.post("/v1/trainings", json=TRAINING).raise_for_status().json()["id"])
    stack.wait_for(job_id, lambda job: job["progress"]["phase"] == "training" and job["progress"]["step"] > 0, 120)
    try:
        yield job_id
    finally:
        stack.client.delete(f"/v1/jobs/{job_id}").raise_for_status()


@contextlib.contextmanager
def _floor_server() -> Iterator[str]:
    server = subprocess.Popen([sys.executable, "-m", "tests.load.floor"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        address = next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        yield address
    finally:
        server.terminate()
        server.wait()


def _worker(stack: Stack) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "SDFSRN_DATA": str(stack.data)}
    with (stack.data.parent / "workers.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "worker", "--queue", "reconstruction"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )


def _api(stack: Stack) -> psutil.Process:
    return next(each for each in psutil.Process(stack.process.pid).children() if "service.serve" in each.cmdline())


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _percentile(seconds: list[float], share: float) -> float:
    return float(np.percentile(seconds, share)) * 1e3 if seconds else float("nan")


if __name__ == "__main__":
    main()
