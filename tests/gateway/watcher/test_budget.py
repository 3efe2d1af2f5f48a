import random

import pytest
from hypothesis import given, strategies as st

from airflow_provider_mljobs.gateway.watcher.budget import StatementBudget

NOW = 1_790_000_000.0


def test_nobody_has_a_turn_at_first():
    """There is nothing to wait for then."""
    turns = StatementBudget(60, NOW)

    assert (None, None) == (turns.take(NOW), turns.wait(NOW))


def test_who_has_waited_longest_is_next():
    """In the order in which they were due, whenever they asked."""
    turns = StatementBudget(600, NOW)
    for who, due in (("c", 3), ("a", 1), ("d", 4), ("b", 2)):
        turns.add(who, NOW + due)

    assert ["a", "b", "c", "d", None] == [turns.take(NOW + 10) for _ in range(5)]


def test_nobody_is_early():
    """A turn comes when it is due, and wait() returns the seconds until then."""
    turns = StatementBudget(60, NOW)
    turns.add("a", NOW + 5)

    assert (None, 5) == (turns.take(NOW), turns.wait(NOW))
    assert (None, 1) == (turns.take(NOW + 4), turns.wait(NOW + 4))
    assert "a" == turns.take(NOW + 5)


def test_a_later_turn_takes_the_place_of_an_earlier_one():
    """A key has one turn: a new one replaces it."""
    turns = StatementBudget(60, NOW)
    turns.add("a", NOW)
    turns.add("a", NOW + 5)

    assert 5 == turns.wait(NOW)


def test_a_turn_can_be_taken_away():
    """Also one that isn't there."""
    turns = StatementBudget(60, NOW)
    turns.add("a", NOW)
    turns.remove("a")
    turns.remove("b")

    assert (None, None) == (turns.take(NOW), turns.wait(NOW))


def test_a_dear_turn_delays_the_next_ones():
    """The next turn waits until the cost is earned again: here a statement a second, and ten at once."""
    turns = StatementBudget(60, NOW)
    turns.add("a", NOW)
    turns.add("b", NOW)

    assert "a" == turns.take(NOW)
    turns.spend(30)
    assert (None, 21) == (turns.take(NOW), turns.wait(NOW))
    assert None is turns.take(NOW + 20.9)
    assert "b" == turns.take(NOW + 21)


def test_what_was_not_spent_is_not_saved_for_long():
    """After a quiet night there are ten seconds' worth of statements, and no more."""
    turns = StatementBudget(60, NOW)
    turns_taken = 0
    later = NOW + 36_000
    for who in range(100):
        turns.add(who, NOW)
    while turns.take(later) is not None:
        turns.spend(1)
        turns_taken += 1

    assert 10 == turns_taken


@pytest.mark.parametrize("per_minute", [0.5, 3, 6])
def test_a_small_budget_is_spent_one_by_one(per_minute):
    """At least one statement can always be saved up."""
    turns = StatementBudget(per_minute, NOW)
    for who in range(2):
        turns.add(who, NOW)

    assert 0 == turns.take(NOW)
    turns.spend(1)
    assert 1 == turns.take(NOW + 60 / per_minute)


def test_a_clock_that_goes_back_earns_nothing():
    """And costs nothing."""
    turns = StatementBudget(60, NOW)
    turns.add("a", NOW - 100)
    turns.spend(10)

    assert None is turns.take(NOW - 100)
    assert "a" == turns.take(NOW - 99)


@given(st.floats(0.5, 5000), st.integers(1, 20), st.integers(0, 1000))
def test_over_time_the_budget_holds(per_minute, jobs, seed):
    """At any cost of the turns, a caller that waits as asked gets its turn, and all get equally many."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    turns = StatementBudget(per_minute, NOW)
    for job in range(jobs):
        turns.add(job, NOW)
    now, spent = NOW, 0
    had = dict.fromkeys(range(jobs), 0)
    most = max(1.0, per_minute / 6)
    for _ in range(100):
        wait = turns.wait(now)
        if wait:
            assert None is turns.take(now + wait * chance.uniform(0, 0.99))
            now += wait
        job = turns.take(now)
        assert job is not None
        # A turn needs one available statement, and may cost more.
        assert spent <= most - 1 + (now - NOW) * per_minute / 60 + 1e-3
        had[job] += 1
        cost = chance.choice([0, 1, 1, 2, 20])
        turns.spend(cost)
        spent += cost
        turns.add(job, now)

    assert max(had.values()) - min(had.values()) <= 1


def test_turns_are_fair_to_those_who_are_seldom_due():
    """A crowd that always wants more doesn't keep one from its turn."""
    turns = StatementBudget(60, NOW)
    crowd = random.Random(1)  # noqa: S311 (no secret)
    for who in range(100):
        turns.add(who, NOW)
    now = NOW
    for _ in range(50):
        now += turns.wait(now)
        who = turns.take(now)
        turns.spend(1)
        turns.add(who, now + crowd.random())
    turns.add("one", now)
    ahead = 0
    while True:
        now += turns.wait(now)
        who = turns.take(now)
        if who == "one":
            break
        turns.spend(1)
        turns.add(who, now + 1)
        ahead += 1

    assert ahead <= 100


def test_what_was_set_aside_in_vain_can_be_spent():
    """Refunded statements can be spent, but no more than those of some seconds are saved."""
    turns = StatementBudget(60, NOW)
    turns.spend(10)
    assert not turns.has_allowance(NOW)

    turns.refund(10)
    assert turns.has_allowance(NOW)
    turns.refund(5)
    assert turns.has_allowance(NOW)
    turns.spend(10)
    assert not turns.has_allowance(NOW)
