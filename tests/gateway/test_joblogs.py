"""Logs of jobs through the connector: from their nodes, which keep 100 KB, and from an event table."""

import json
import re
import time
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import SnowflakeUnavailableError, UnreadableError
from airflow_provider_mljobs.gateway.connection import Connection
from airflow_provider_mljobs.gateway.joblogs import (
    Printed,
    read_log,
    read_logs,
    read_news,
    read_rest,
    sources,
)
from airflow_provider_mljobs.gateway.log_store import LogStore, Source
from airflow_provider_mljobs.gateway.statements import Extent
from airflow_provider_mljobs.jobs.logs.cursor import Gap, LogCursor, Tail
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName
from tests.budget import budget
from tests.lab import POOL, served

IMAGE = "/snowflake/images/snowflake_images/st_plat/runtime/x86/runtime_image/snowbooks:1.8.0"
CUT_OFF = "[the log is longer than the 100 KB that Snowflake keeps on the node; its beginning is cut off]"
STAMPED, PLAIN, FUNCTION = r"GET_SERVICE_LOGS.*TRUE\)", r"GET_SERVICE_LOGS.*'main'\)", "SPCS_GET_LOGS"
TABLE = f"{FUNCTION}|TELEMETRY"
# Prints something, and more when it is cancelled.
TALKS_ON = "exec 2>/dev/null; bye() {{ {}; exit 0; }}; trap bye TERM; echo first; while :; do sleep 0.05; done"
MANY = [f"line {number}" for number in range(1, 20_001)]
PRINTS_MANY = "seq -f 'line %.0f' 20000"


class Lab:
    """Jobs on an embedded Snowflake, and one store of their logs."""

    def __init__(self, server, network_timeout=60):
        from snowflake import connector

        self.server = server
        kwargs = {"network_timeout": network_timeout, **server.connection_kwargs}
        self.connection = Connection(lambda: connector.connect(**kwargs))
        self.store = LogStore(self.connection)
        self._names = []

    def start(self, *commands, replicas=1, **spec):
        """Start a job with a container for each shell command; they are called main, second and so on."""
        job = QualifiedName(Identifier("MLJOBS_DB"), Identifier("PUBLIC"), Identifier(f"J_{time.monotonic_ns()}"))
        containers = [
            {"name": name, "image": IMAGE, "command": ["sh", "-c", command]}
            for name, command in zip(("main", "second"), commands, strict=False)
        ]
        self.connection.rows(
            f"EXECUTE JOB SERVICE IN COMPUTE POOL {POOL} NAME = {job} ASYNC = TRUE REPLICAS = {replicas} "
            f"FROM SPECIFICATION $${json.dumps({'spec': {'containers': containers, **spec}})}$$"
        )
        self._names.append(job)
        return Source(job, 0, "main")

    def run(self, *commands, replicas=1, **spec):
        """Run a job to its end."""
        source = self.start(*commands, replicas=replicas, **spec)
        self.connection.rows(f"CALL {source.job}!SPCS_WAIT_FOR('DONE', {budget():.0f})")
        return source

    def end(self, source):
        """Cancel a job and wait for its end."""
        self.connection.rows(f"CALL {source.job}!SPCS_CANCEL_JOB()")
        self.connection.rows(f"CALL {source.job}!SPCS_WAIT_FOR('CANCELLED', {budget():.0f})")

    def asked(self):
        """Return the forms of log that were asked for since the last call: stamped, plain or from an event table."""
        kinds = {"stamped": STAMPED, "plain": PLAIN, "table": TABLE}
        texts = self.server.statements.texts
        asked_for = [kind for text in texts for kind, pattern in kinds.items() if re.search(pattern, text)]
        self.server.statements.clear()
        return asked_for

    @contextmanager
    def refused(self, *patterns, **effect):
        """Let statements fail for a while."""
        for pattern in patterns:
            self.server.faults.add(Fault(matching=pattern, **{"effect": "error", **effect}))
        try:
            yield
        finally:
            self.server.faults.clear()

    def close(self):
        """Drop the jobs."""
        for job in self._names:
            self.connection.rows(f"DROP SERVICE IF EXISTS {job} FORCE")
        self.connection.close()


@pytest.fixture(scope="module")
def server():
    """An embedded Snowflake with an event table that is up to date."""
    with served() as server:
        yield server


@pytest.fixture
def lab(server):
    """Jobs that are dropped at the end."""
    lab = Lab(server)
    server.statements.clear()
    yield lab
    lab.close()


def first_look(lab, source, printed):
    """Read a log until there is something in it."""
    while not (lines := read_news(lab.store, source, printed)):
        time.sleep(0.02)
    return lines


def again(printed):
    """Return the place as another process reads it."""
    return Printed.from_json(json.loads(json.dumps(printed.to_json())))


@pytest.mark.parametrize("refused", [(), (STAMPED,)], ids=["stamped", "plain"])
def test_a_log_is_read_while_the_job_runs(lab, refused):
    """Each line is shown once, readable, with or without times; the JSON of the place is enough to continue."""
    with lab.refused(*refused):
        source = lab.start(TALKS_ON.format(r"printf '\033[31mred\033[0m\n10%%\r20%%\n2026-01-01T00:00:00Z mine'"))
        printed = Printed()
        first = first_look(lab, source, printed)
        printed = again(printed)
        nothing = read_news(lab.store, source, printed)
        lab.end(source)
        rest = read_news(lab.store, source, printed, is_final=True)
        end = read_rest(lab.store, [source], again(printed))

    assert ["first"] == first
    assert [] == nothing
    assert ["red", "20%", "2026-01-01T00:00:00Z mine"] == rest
    assert () == end.unseen
    assert "first\nred\n20%\n2026-01-01T00:00:00Z mine" == end.text


def test_only_what_came_since_is_asked_for(lab):
    """Of a long log a look brings a few lines."""
    source = lab.start(TALKS_ON.format("echo last"))
    printed = Printed()
    first_look(lab, source, printed)
    lab.asked()
    read_news(lab.store, source, printed)
    (statement,) = lab.server.statements.matching(STAMPED)
    cursor = printed.cursors[0, "main"]

    assert f"'{cursor.since()}'" in statement
    assert 1 == cursor.count


def test_what_an_account_gives_is_found_out_once(lab):
    """The first look finds the form of the log; later ones take one statement each, and another store looks again."""
    source = lab.run("echo hello")
    lab.asked()
    texts = [lab.store.tail(source).text for _ in range(2)]
    stamped = lab.asked()
    with lab.refused(STAMPED):
        store = LogStore(lab.connection)
        plain = [store.tail(source) for _ in range(2)]
    refused = lab.asked()

    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z hello\n", text) for text in texts)
    assert ["stamped"] * 2 == stamped
    assert ["hello\n"] * 2 == [tail.text for tail in plain]
    assert ["stamped", "plain", "stamped", "plain"] == refused


def test_a_container_that_starts_in_between_is_no_account_that_refuses(lab):
    """The form of the statement is tried again before it is given up."""
    source = lab.run("echo hello")
    with lab.refused(STAMPED, nth=1):
        tail = lab.store.tail(source)

    assert tail.is_stamped
    assert lab.store.tail(source).is_stamped


def test_before_a_container_starts_there_is_nothing_to_find_out(lab):
    """A job whose container has not started, or that doesn't exist, has no log."""
    nobody = Source(QualifiedName(Identifier("MLJOBS_DB"), Identifier("PUBLIC"), Identifier("NOBODY")), 0, "main")
    source = lab.run("echo hello")

    assert lab.store.tail(nobody) is None
    assert read_news(lab.store, nobody, Printed()) is None
    assert [] == lab.store.stored(nobody).lines
    assert lab.store.tail(source).is_stamped


@pytest.mark.parametrize("pattern", [STAMPED, TABLE])
def test_a_snowflake_out_of_reach_is_no_missing_log(lab, server, pattern):
    """An outage raises an error instead of an empty log."""
    source = lab.run("echo hello")
    hasty = Lab(server, network_timeout=1)
    with lab.refused(pattern, effect="http_503"), pytest.raises(SnowflakeUnavailableError):
        hasty.store.stored(source) if pattern == TABLE else hasty.store.tail(source)
    hasty.close()


@pytest.mark.parametrize("refused", [(), (STAMPED,)], ids=["stamped", "plain"])
def test_a_gap_is_announced_where_it_is(lab, refused):
    """The line says how much is missing, if that is known, and which query may find it; the log continues after it."""
    with lab.refused(*refused):
        source = lab.start(TALKS_ON.format(PRINTS_MANY))
        printed = Printed()
        first_look(lab, source, printed)
        lab.end(source)
        announced, *lines = read_news(lab.store, source, printed, is_final=True)
        again_lines = read_news(lab.store, source, printed, is_final=True)

    assert MANY[-len(lines) :] == lines
    assert 1000 < len(lines) < 15_000
    assert ([], 1) == (again_lines, len(printed.gaps))
    size = "lines may be missing here" if refused else r"\d+\.\d{3} s of output are missing here, from \S+Z to \S+Z"
    assert re.match(
        rf"\[… {size}: the node keeps the last 100 KB only. An event table may have them: SELECT", announced
    )
    query = announced.partition("have them: ")[2].removesuffix("]")
    rows = [row["log"] for row in lab.connection.rows(query)]
    if not refused:
        # From the line before the gap to the first one behind it.
        assert ["first", *MANY[: -len(lines) + 1]] == rows


def test_a_beginning_that_is_gone_is_announced(lab):
    """There is no time from which on it is missing."""
    source = lab.run(PRINTS_MANY)
    printed = Printed()
    announced, *lines = read_news(lab.store, source, printed)
    (instance, name, gap) = printed.gaps[0]

    assert MANY[-len(lines) :] == lines
    assert announced.startswith(f"[… everything before {gap.before} is missing here")
    assert (0, "main", "") == (instance, name, gap.after)


def test_a_gap_is_filled_at_the_end(lab):
    """Missing lines that the event table has by the end of the job are shown with their place."""
    source = lab.start(TALKS_ON.format(PRINTS_MANY))
    printed = Printed()
    first_look(lab, source, printed)
    lab.end(source)
    _, *lines = read_news(lab.store, source, printed, is_final=True)
    gap = printed.gaps[0][2]
    end = read_rest(lab.store, [source], again(printed))

    assert (
        f"[Missing above, between {gap.after} and {gap.before}:]",
        *MANY[: -len(lines)],
    ) == end.unseen
    assert end.text.startswith(lines[0])
    assert end.text.endswith(MANY[-1])


def test_what_was_never_read_is_whole_at_the_end(lab):
    """Lines that left the node before the first look come from the event table, without a gap."""
    source = lab.run(PRINTS_MANY)
    end = read_rest(lab.store, [source], Printed())

    assert tuple(MANY) == end.unseen
    assert len(end.text) < 100 * 1024


def test_without_an_event_table_a_gap_stays_one(lab):
    """Without an event table, a gap is announced once and never filled."""
    source = lab.run(PRINTS_MANY)
    printed = Printed()
    with lab.refused(TABLE, errno=2143):
        announced, *lines = read_news(lab.store, source, printed, is_final=True)
        end = read_rest(lab.store, [source], printed)

    assert announced.startswith("[… everything before")
    assert MANY[-len(lines) :] == lines
    assert () == end.unseen


REPORTS = """echo before; echo '::mljobs::{"progress": 0.4}'; echo '::mljobs::{"metrics": {"auc": 1}}'; echo behind"""


def test_reports_are_taken_out(lab):
    """Reports become values, of which only progress leaves a line in the log; their characters count as read."""
    source = lab.run(REPORTS)
    printed = Printed()
    news = read_news(lab.store, source, printed, is_final=True)
    rest = read_rest(lab.store, [source], Printed())

    assert ["before", "progress 40 %", "behind"] == news == list(rest.unseen)
    assert "before\nprogress 40 %\nbehind" == rest.text.rstrip() == read_log(lab.store, source).rstrip()
    assert {"auc": 1} == printed.reported.metrics == rest.reported.metrics
    assert printed.reported == Printed.from_json(json.loads(json.dumps(printed.to_json()))).reported
    assert 72 == printed.characters


def test_the_rest_may_be_read_again(lab):
    """After an error elsewhere, the rest of the log can be read once more."""
    source, printed = lab.run("seq 5"), Printed()

    first, second = (read_rest(lab.store, [source], printed) for _ in range(2))

    assert ("1", "2", "3", "4", "5") == first.unseen == second.unseen


def test_the_launchers_banners_do_not_show(lab):
    """Also not those among the lines of an event table; the text of the log has them, for who looks for them."""
    line = "-" * 32
    start, end = f"{line}\nML job started\n{line}\n", f"{line}\nML job finished\n{line}\n"
    source = lab.run(f"printf -- '{start}'; echo {line}; {PRINTS_MANY}; printf -- '{end}'")
    rest = read_rest(lab.store, [source], Printed())

    assert (line, *MANY) == rest.unseen
    assert rest.text.endswith(end.rstrip())


def test_when_the_node_is_gone_the_event_table_goes_on(lab):
    """Behind the last line that was read, once."""
    source = lab.start(TALKS_ON.format("seq 3"))
    printed = Printed()
    first_look(lab, source, printed)
    lab.end(source)
    with lab.refused("GET_SERVICE_LOGS"):
        missing = read_news(lab.store, source, printed, is_final=True)
        lab.asked()
        end = read_rest(lab.store, [source], again(printed))
        asked = lab.asked()

    assert missing is None
    assert ("1", "2", "3") == end.unseen
    assert "first\n1\n2\n3" == end.text
    assert ["stamped", "table"] == asked


def test_when_the_log_is_gone_everywhere_that_is_said():
    """A node forgets a container soon after its end, and not each account has an event table."""
    with served(log_retention=0.0, event_table=False) as server:
        lab = Lab(server)
        source = lab.start(TALKS_ON.format("echo last"))
        printed = Printed()
        first_look(lab, source, printed)
        lab.end(source)
        end = read_rest(lab.store, [source], again(printed))
        nothing = read_rest(lab.store, [source], Printed())
        printed.is_whole = True
        whole = read_rest(lab.store, [source], printed)
        lab.close()

    gone = "[The log of instance 0, container main is not on its node (any more), and no event table has it."
    cursor = printed.cursors[0, "main"]
    assert (f"{gone} Its output after {cursor.stamp} is missing.]",) == end.unseen
    assert (f"{gone}]",) == nothing.unseen
    assert () == whole.unseen
    assert ["", "", ""] == [rest.text for rest in (end, nothing, whole)]


def test_lines_of_several_instances_say_whose_they_are(lab):
    """In the news, in the rest and in the log."""
    source = lab.run("printf 'hello\\n\\nbye\\n'", replicas=2)
    containers = sources(source.job, [(1, "main"), (0, "main")])
    printed = Printed()
    news = [line for each in containers for line in read_news(lab.store, each, printed)]
    lines = [f"[instance {instance}] {line}" for instance in (0, 1) for line in ("hello", "", "bye")]

    assert lines == news
    assert lines == list(read_rest(lab.store, containers, Printed()).unseen)
    assert "\n".join(lines) == read_rest(lab.store, containers, Printed()).text == read_logs(lab.store, containers)


def test_lines_of_several_containers_say_whose_they_are(lab):
    """By instance and name; a single container needs no label."""
    source = lab.run("echo a", "echo b")
    containers = sources(source.job, [(0, "second"), (0, "main")])

    assert ["[instance 0, main] ", "[instance 0, second] "] == [each.label for each in containers]
    assert "[instance 0, main] a\n[instance 0, second] b" == read_logs(lab.store, containers)
    assert "a" == read_logs(lab.store, sources(source.job, [(0, "main")]))


def test_a_log_says_if_its_beginning_is_missing(lab):
    """Unless an event table has all of it."""
    source = lab.run(PRINTS_MANY)
    whole = read_log(lab.store, source)
    with lab.refused(TABLE, errno=2143):
        head, *lines = read_log(lab.store, source).splitlines()
    with lab.refused("GET_SERVICE_LOGS"):
        text = read_log(lab.store, source)

    assert MANY == whole.splitlines() == text.splitlines()
    assert (CUT_OFF, MANY[-len(lines) :]) == (head, lines)


def test_a_line_longer_than_the_node_keeps(lab):
    """Of a line longer than 100 KB the log has the end, and a line that says that the beginning is missing."""
    source = lab.run("head -c 200000 /dev/zero | tr '\\0' x")
    with lab.refused(TABLE):
        head, line = read_log(lab.store, source).splitlines()
        (announced,) = read_rest(lab.store, [source], Printed()).unseen

    assert CUT_OFF == head
    assert {"x"} == set(line)
    assert announced.startswith("[… lines may be missing here")


def test_what_was_printed_survives_json():
    """For the task's event, and for the next triggerer."""
    gaps = [
        (number, "main", Gap("2026-01-01T00:00:00Z", "b", "2026-01-01T00:00:09Z", str(number))) for number in range(3)
    ]
    printed = Printed({(1, "a/b"): LogCursor("2026-01-01T00:00:00Z", 2, ("x", "y"))}, gaps, is_whole=True)

    assert printed == again(printed)
    assert Printed() == Printed.from_json({})


@pytest.mark.parametrize(
    "place",
    [
        {"gaps": 1},
        {"gaps": [1]},
        {"gaps": [[0, "main", "a"]]},
        {"gaps": [["x", "main", "a", "b", "c", "d"]]},
        {"cursors": [1]},
        {"cursors": {"x/main": []}},
        {"cursors": {"0/main": 3}},
        [],
    ],
    ids=str,
)
def test_a_place_of_another_form(place):
    """A place that a newer version or a person has written raises UnreadableError."""
    with pytest.raises(UnreadableError, match="The place in the log"):
        Printed.from_json(place)


def test_containers_share_what_is_read_of_logs():
    """A job of a hundred containers takes no more memory than one of one."""
    whole = Extent(lines=50, characters=1_000, line_characters=100)

    assert Extent(lines=5, characters=100, line_characters=100) == whole.shared(10)
    assert Extent(lines=1, characters=1, line_characters=100) == whole.shared(5_000)


def test_an_account_without_the_function():
    """Where SPCS_GET_LOGS isn't enabled, the event table itself is asked: of this job, container and instance."""
    with served() as server, closing(Lab(server)) as lab:
        source = lab.run("echo one; echo; echo 42")
        lab.run("echo somebody else")
        expected = lab.store.stored(source).lines

        with lab.refused(FUNCTION, errno=2143):
            stored = lab.store.stored(source).lines
            _, *later = [at.isoformat().replace("+00:00", "Z") for at, _ in stored]
            since = [lab.store.stored(source, moment).lines for moment in later]

    assert expected == stored
    assert ["one", "", "42"] == [line for _, line in stored]
    assert [stored[1:], stored[2:]] == since


@pytest.mark.parametrize("refused", [None, FUNCTION], ids=["function", "table"])
def test_a_log_without_end_is_cut_before_it_is_sent(refused):
    """Snowflake sends the last lines, no more characters than a worker takes, and says that there are more."""
    with served() as server, closing(Lab(server)) as lab:
        source = lab.run("echo first; echo 0123456789; echo 42; echo last")
        with lab.refused(refused, errno=2143) if refused else nullcontext():
            logs = [
                LogStore(lab.connection, Extent(lines=lines, characters=characters, line_characters=4)).stored(source)
                for lines, characters in ((9, 99), (9, 7), (2, 99))
            ]

    assert [["firs", "0123", "42", "last"], ["42", "last"], ["42", "last"]] == [
        [line for _, line in each.lines] for each in logs
    ]
    assert [False, True, True] == [each.is_cut for each in logs]


def test_an_account_without_an_event_table(lab):
    """Without an event table, lines that left the node are lost."""
    source = lab.run("echo gone")

    with lab.refused(FUNCTION, errno=2143), lab.refused("event_table"):
        assert [] == lab.store.stored(source).lines


class Node:
    """A node that has lost all output since the last look."""

    def __init__(self):
        self._looks = 0

    def begin_of(self, job):
        """Return the time of the job's creation."""
        return "2026-01-01T00:00:00Z"

    def tail(self, source, since):
        """Return a line that comes behind a gap."""
        self._looks += 1
        return Tail(f"x\n2026-01-01T00:00:{self._looks:02d}Z line\n", is_stamped=True, is_cut=True)


def test_only_the_last_gaps_are_remembered():
    """A job that prints faster than it is read fills neither the triggerer's memory nor the event with gaps."""
    printed, node = Printed(), Node()
    for _ in range(30):
        read_news(node, Source(QualifiedName.parse("DB.S.J", "job"), 0, "main"), printed)

    assert 20 == len(printed.gaps)
    assert "2026-01-01T00:00:30Z" == printed.gaps[-1][2].before


class SetBack:
    """The log of a container on a node whose clock is set: the embedded Snowflake's never is."""

    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self._lines = []

    def print(self, text, after=1.0):
        """Print a line after so many seconds."""
        self.now += timedelta(seconds=after)
        self._lines.append((self.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), text))

    def tail(self, source, since=""):
        """Return the log as a node does: each line on its own is left away if it is older."""
        del source
        text = "".join(f"{at} {line}\n" for at, line in self._lines if at >= since)
        return Tail(text)


@pytest.mark.parametrize("seconds", [3, 30, 59, 61, 400, 4000])
@pytest.mark.parametrize("interval", [5, 10, 100])
def test_a_clock_that_is_set_back(seconds, interval):
    """Each line that is printed before, while and after a node's clock is behind is shown once, in order."""
    node, printed, lines, texts = SetBack(), Printed(), [], []
    source = Source(QualifiedName.parse("DB.S.J", "job"), 0, "main")
    overlap = timedelta(seconds=2 * interval)
    for number in range(1000):
        if number == 500:
            node.now -= timedelta(seconds=seconds)
        node.print(f"line {number}")
        texts.append(f"line {number}")
        if number % interval == 0:
            lines += read_news(node, source, printed, overlap=overlap)
    lines += read_news(node, source, printed, is_final=True)

    assert texts == lines


def start_of_question(lab):
    """Return the time from which the event table was last asked for lines."""
    (text,) = lab.server.statements.matching(FUNCTION)[-1:]
    return datetime.fromisoformat(re.search(r"START_TIME => TO_TIMESTAMP_LTZ\('(.*?)'\)", text)[1])


@pytest.mark.parametrize("end", ["kept", "dropped"])
def test_lines_are_asked_for_from_the_creation_of_their_job(lab, end):
    """The event table is not searched for times before the job, whether its service or the job history has it."""
    before = datetime.now(UTC).replace(microsecond=0)
    source = lab.run("echo asked")
    if end == "dropped":
        lab.connection.rows(f"DROP SERVICE {source.job}")
    stored = LogStore(lab.connection).stored(source)

    assert ["asked"] == [line for _, line in stored.lines]
    assert before <= start_of_question(lab) + timedelta(minutes=10) <= datetime.now(UTC)


def test_lines_of_a_job_that_nothing_shows(lab):
    """Without a time of creation, lines are asked for from a month ago on, which is as long as jobs are remembered."""
    LogStore(lab.connection).stored(Source(QualifiedName.parse("MLJOBS_DB.PUBLIC.NEVER", "job"), 0, "main"))

    assert 30 == (datetime.now(UTC) - start_of_question(lab)).days


def test_the_view_of_the_default_event_table(lab):
    """Of Snowflake's own event table the view is asked, which needs fewer rights than the table."""
    source = lab.run("echo viewed")
    lab.server.statements.clear()
    with lab.refused(FUNCTION, errno=2143):
        stored = lab.store.stored(source)

    assert ["viewed"] == [line for _, line in stored.lines]
    assert lab.server.statements.matching(r"FROM SNOWFLAKE\.TELEMETRY\.EVENTS_VIEW WHERE")
    assert [] == lab.server.statements.matching(r"TELEMETRY\.EVENTS\b")


def test_an_event_table_of_the_account(lab):
    """An event table of the account's own is asked as it is."""
    source = lab.start("true")
    table = Fault(matching="event_table", effect="rewrite", column="value", value="ML.PUBLIC.MY_EVENTS")
    with lab.refused(FUNCTION, errno=2143):
        lab.server.faults.add(table)
        lab.store.stored(source)

    assert lab.server.statements.matching(r"FROM ML\.PUBLIC\.MY_EVENTS WHERE")
