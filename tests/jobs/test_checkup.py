"""The order of checks, and the lines that mend what is missing."""

import pytest

from airflow_provider_mljobs.jobs.checkup import Check, Finding, State, missing, ok, run, script, unseen


def refuse():
    """Fail to look."""
    raise KeyError("state")


def test_checks_run_in_their_order():
    """Each finding has the name of its check."""
    findings = run([Check("login", lambda: ok("here")), Check("role", lambda: ok("there"))])

    assert [
        Finding(check="login", state=State.OK, detail="here"),
        Finding(check="role", state=State.OK, detail="there"),
    ] == list(findings)


def test_a_check_that_fails_never_ends_the_others():
    """An error of a check is a finding of its own; nothing is proven by it, so checks that need it still look."""
    findings = run([Check("pool", refuse), Check("image", lambda: ok("v2"), ("pool",))])

    assert [(State.UNSEEN, "KeyError: 'state'"), (State.OK, "v2")] == [(each.state, each.detail) for each in findings]


def test_credentials_are_masked():
    """An address in a message of Snowflake's may have a password."""
    (finding,) = run([Check("index", lambda: unseen("no route to https://me:secret@example.com"))])

    assert "secret" not in finding.detail


def test_a_check_without_its_need_is_skipped():
    """A check whose need is missing doesn't look, and neither do those that need it in turn."""
    findings = run(
        [
            Check("login", lambda: missing("wrong password")),
            Check("pool", refuse, ("login",)),
            Check("image", refuse, ("pool",)),
            Check("clock", lambda: ok("exact")),
        ]
    )

    assert [
        ("login", State.MISSING, "wrong password"),
        ("pool", State.UNSEEN, "Not checked without: login."),
        ("image", State.UNSEEN, "Not checked without: pool."),
        ("clock", State.OK, "exact"),
    ] == [(each.check, each.state, each.detail) for each in findings]


def test_interrupts_pass():
    """Ctrl-C ends the checks."""

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run([Check("login", interrupt)]))


def test_only_timed_checks_have_seconds():
    """A step of the probe says how long it took, unless it was skipped."""
    findings = run(
        [
            Check("login", lambda: ok("")),
            Check("upload", lambda: missing(""), is_timed=True),
            Check("submit", lambda: ok(""), ("upload",), is_timed=True),
        ]
    )

    assert [True, False, True] == [each.seconds is None for each in findings]


def test_script():
    """Each statement stands once, in the order of the checks; settings outside of Snowflake are comments."""
    findings = [
        missing("", "GRANT A", "GRANT B"),
        Finding(check="clock", state=State.MISSING, detail="", setting="timedatectl set-ntp true"),
        missing("", "GRANT A", "GRANT C"),
        unseen("GRANT D"),
    ]

    assert [
        "-- Run as a role that may grant and alter these, e.g. ACCOUNTADMIN:",
        "GRANT A;",
        "GRANT B;",
        "GRANT C;",
        "-- clock: timedatectl set-ntp true",
    ] == script(findings)


def test_script_of_a_healthy_account():
    """Nothing is to be run if nothing is missing."""
    assert [] == script([ok("here"), unseen("there")])


def test_json():
    """Numbers of seconds are rounded; findings without have none."""
    finding = Finding(check="clock", state=State.UNSEEN, detail="d", sql=("A;",), setting="s", seconds=1.2345)

    assert {
        "check": "clock",
        "state": "can't be seen",
        "detail": "d",
        "sql": ["A;"],
        "setting": "s",
        "seconds": 1.2,
    } == finding.to_json()
    assert "seconds" not in ok("").to_json()
