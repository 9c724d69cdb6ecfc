"""`python -m tests.benchmarks.neighbour`: keeps one core busy, until its parent ends it or ends itself."""

from service import lifeline

if __name__ == "__main__":
    lifeline.end_with_parent()
    print("at work", flush=True)
    while True:
        pass
