"""`python -m tests.faults [WORD ...]`: play every fault (or those whose name holds a word), print the table and the sum.

The exit code is 0 if no job was lost or doubled, no file orphaned, and no worker's loss was felt for 15 seconds.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import start_stack, stop_stack
from tests.faults.matrix import CLOCK_FILE, SETTINGS, Field, Result, scenarios, settle

WORKER_RECOVERY_S = 15.0


def main() -> None:
    """Play, count, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    words = parser.parse_args().words
    chosen = [(name, play) for name, play in scenarios() if not words or any(word in name for word in words)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "PYTHONPATH": f"{Path(__file__).parent / 'clock'}:{os.environ.get('PYTHONPATH', '')}",
            "FAULTS_CLOCK": f"{folder}/{CLOCK_FILE}",
        }
        stack = start_stack(Path(folder) / "data", **SETTINGS)
        try:
            for name, play in chosen:
                harmed, result = Field(stack), Result(name)
                started = time.monotonic()
                try:
                    result.recovery_s = play(harmed)
                except (AssertionError, TimeoutError) as error:
                    result.remark = f"WRONG: {error}"
                settle(harmed, result)
                results.append(result)
                print(f"{_line(result)}   ({time.monotonic() - started:.0f} s)", flush=True)
        finally:
            stop_stack(stack)
    sys.exit(_judge(results))


def _line(result: Result) -> str:
    recovery = f"{result.recovery_s:.1f} s" if result.recovery_s is not None else "-"
    ended = ", ".join(f"{count} {status}" for status, count in sorted(result.statuses.items()))
    counts = f"jobs {result.jobs:3}  lost {result.lost}  doubled {result.doubled}  orphans {result.orphans}"
    return f"{result.name:55} {counts}  recovery {recovery:>7}  {ended} {result.remark}"


def _judge(results: list[Result]) -> int:
    workers = [r.recovery_s for r in results if r.recovery_s is not None and ("worker" in r.name or "child" in r.name)]
    worst = max(workers, default=0.0)
    lost, doubled, orphans = (sum(getattr(result, name) for result in results) for name in ("lost", "doubled", "orphans"))
    wrong = [result.name for result in results if result.remark.startswith("WRONG")]
    if wrong:
        print(f"not as expected: {', '.join(wrong)}")
    print(
        f"jobs {sum(result.jobs for result in results)}, lost {lost}, doubled {doubled}, orphans {orphans}, "
        f"worst worker recovery {worst:.1f} s"
    )
    return int(bool(lost or doubled or orphans or wrong or worst >= WORKER_RECOVERY_S))


if __name__ == "__main__":
    main()
