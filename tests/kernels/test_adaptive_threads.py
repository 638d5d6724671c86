"""Passes take all threads on a quiet machine, and one beside a busy neighbour: with a simulated clock."""

from __future__ import annotations

from underhood.kernels.adaptive_threads import LONGEST_PAUSE, AdaptiveThreads


class Machine:
    """Passes take 10 ms on all threads and 18 ms on one; beside a neighbour, parallel ones take 60 ms."""

    def __init__(self) -> None:
        self.now, self.busy = 0.0, False
        self.threads = AdaptiveThreads(lambda: self.now)

    def run(self, seconds: float, size: int = 1) -> tuple[float, float]:
        """Passes per second, and the share of those that ran on one thread."""
        start, passes, alone_passes = self.now, 0, 0
        while self.now < start + seconds:
            with self.threads.measured(size) as alone:
                self.now += 0.018 if alone else 0.060 if self.busy else 0.010
            passes, alone_passes = passes + 1, alone_passes + alone
        return passes / seconds, alone_passes / passes


def test_a_quiet_machine_uses_all_threads() -> None:
    machine = Machine()
    machine.run(0.1)
    rate, alone = machine.run(20.0)
    assert rate > 99
    assert alone < 0.005


def test_a_busy_neighbour_costs_no_more_than_its_core() -> None:
    machine = Machine()
    machine.run(1.0)
    machine.busy = True
    rate, alone = machine.run(20.0)
    assert rate > 0.5 * 100  # one thread alone gives 0.55
    assert alone > 0.97
    machine.busy = False
    machine.run(LONGEST_PAUSE)
    rate, alone = machine.run(5.0)
    assert rate > 98


def test_a_neighbour_from_the_start_is_noticed_too() -> None:
    machine = Machine()
    machine.busy = True
    machine.run(1.0)
    rate, _ = machine.run(10.0)
    assert rate > 0.5 * 100


def test_time_that_compiling_takes_does_not_count() -> None:
    machine = Machine()
    with machine.threads.measured(1) as alone:
        assert alone
        machine.now += 30.0
    machine.busy = True
    assert machine.run(5.0)[0] > 0.5 * 100
