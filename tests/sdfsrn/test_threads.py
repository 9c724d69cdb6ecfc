"""Work shared out among threads: order, errors, thread counts, and a training that does not depend on them."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.threads import share_out, undivided_operations
from sdfsrn.training.sdf_srn import Run
from tests.sdfsrn.conftest import TINY_CONFIG, TINY_DATA


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_parts_are_worked_on_at_once_by_undivided_operations_and_found_in_order() -> None:
    together = threading.Barrier(3, timeout=30)  # broken, unless three parts are under way at once

    def work(part: int) -> tuple[int, int]:
        together.wait()
        return part, torch.get_num_threads()

    with undivided_operations():
        assert torch.get_num_threads() == 1
        assert share_out(work, range(3)) == [(0, 1), (1, 1), (2, 1)]
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_a_part_is_raised_when_all_parts_have_ended_and_the_threads_come_back() -> None:
    ended = []

    def work(part: int) -> None:
        time.sleep(0.2 * part)
        ended.append(1 / part)

    with pytest.raises(ZeroDivisionError), undivided_operations():
        share_out(work, [1, 0, 2])
    assert sorted(ended) == [0.5, 1]
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_what_a_part_shares_out_itself_is_not_shared_further() -> None:
    """Else it would wait for threads that all wait as it does."""

    def work(_: int) -> set[int]:
        with undivided_operations():
            return {threading.get_ident(), *share_out(lambda _: threading.get_ident(), range(4))}

    assert [len(threads) for threads in share_out(work, range(3))] == [1, 1, 1]


@pytest.mark.parametrize("changes", [{}, {"symmetry": "mirror", "thickness_weight": 0.05}])
def test_a_training_is_the_same_to_the_bit_on_any_number_of_threads(changes: dict[str, object]) -> None:
    before, found = torch.get_num_threads(), []
    config = type(TINY_CONFIG)(**{**vars(TINY_CONFIG), **changes})
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            run = Run(config, synthetic_dataset(TINY_DATA), torch.device("cpu"))
            rows = [run.train_epoch() for _ in range(2)]
            found.append((rows, run.checkpoint()))
    finally:
        torch.set_num_threads(before)
    (rows, checkpoint), *others = found
    for other_rows, other in others:
        assert other_rows == rows
        for name, value in {**checkpoint.weights, **checkpoint.state}.items():
            assert torch.equal(value, {**other.weights, **other.state}[name]), name


def test_the_shares_of_a_step_have_together_the_gradient_of_the_whole() -> None:
    run = Run(TINY_CONFIG, synthetic_dataset(TINY_DATA), torch.device("cpu"))
    drawn = run._draw(torch.arange(5), run._generator(0, 1))
    whole_losses, whole = run._gradients(drawn, 1.0)
    shares = drawn.shares(2)
    assert [len(share.images) for share in shares] == [3, 2]
    parts = [run._gradients(share, len(share.images) / 5) for share in shares]
    torch.testing.assert_close(sum(losses for losses, _ in parts), whole_losses)
    for one, *own in zip(whole, *(gradients for _, gradients in parts), strict=True):
        torch.testing.assert_close(sum(own), one, rtol=1e-4, atol=2e-2 * float(one.abs().max()))
