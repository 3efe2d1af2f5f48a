"""Reports of jobs: written to the log from any process, and read from lines that are not trusted."""

import io
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from airflow_provider_mljobs import __version__, report
from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.outcome.reports import (
    Progress,
    Reported,
    take_reports,
    without_reports,
)
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.payload.functions import pack
from airflow_provider_mljobs.jobs.payload.sources import Place
from airflow_provider_mljobs.launcher.contract import MARK
from tests.budget import budget

NOW = 1_800_000_000.0
ROOT = Path(__file__).parents[3]


def read(*lines, before=None, now=NOW):
    """Read lines of a log; return the lines for people, and all reports so far."""
    return take_reports(lines, before or Reported(), now)


def line(**document):
    """Return the line of a report, as an own image may print it."""
    return MARK + json.dumps(document)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Make this process one of a job; return a function that reads its log so far."""
    log, results = tmp_path / "log", tmp_path / "results"
    log.touch()
    results.mkdir()
    monkeypatch.setenv("MLJOBS_STDOUT", str(log))
    monkeypatch.setenv("MLRS_STAGE_RESULT_PATH", str(results))
    monkeypatch.chdir(tmp_path)
    return lambda: read(*log.read_text().splitlines())


# In the job.


def test_all_of_it(job):
    """Each kind of report arrives, with its time."""
    Path("model.json").write_text("{}")

    report.progress(0.4, "epoch 4/10")
    report.metrics(step=4, auc=0.91, rows=1000)
    report.artifact("model.json")
    report.asset("s3://models/churn", {"auc": 0.91, "features": ["age"]})

    printed, reported = job()
    assert ["progress 40 %: epoch 4/10"] == printed
    assert (0.4, "epoch 4/10") == (reported.progress.fraction, reported.progress.message)
    assert {"auc": 0.91, "rows": 1000} == reported.metrics
    ((at, step, value),) = reported.series["auc"]
    assert (4, 0.91) == (step, value)
    assert reported.progress.at <= at
    assert ("model.json",) == reported.artifacts
    assert ({"uri": "s3://models/churn", "extra": {"auc": 0.91, "features": ["age"]}},) == reported.assets


PROCESSES = """
import contextlib, io, multiprocessing, os, subprocess, sys, threading
from airflow_provider_mljobs import report

CHILD = "from airflow_provider_mljobs import report; report.metrics({}=1); print('captured')"

def work(name):
    report.metrics(**{name: 1})

if __name__ == "__main__":
    print("unfinished", end="")
    report.metrics(main=1)
    print("finished")
    assert subprocess.check_output([sys.executable, "-c", CHILD.format("captured")], text=True) == "captured\\n"
    subprocess.run([sys.executable, "-c", CHILD.format("silenced")], stdout=subprocess.DEVNULL, check=True)
    for method in ("fork", "spawn"):
        process = multiprocessing.get_context(method).Process(target=work, args=(method,))
        process.start()
        process.join()
    thread = threading.Thread(target=work, args=("thread",))
    thread.start()
    thread.join()
    with contextlib.redirect_stdout(io.StringIO()):
        report.metrics(redirected=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    report.metrics(replaced=1)
    sys.stdout.close()
    report.metrics(closed=1)
"""
NAMES = ["main", "captured", "silenced", "fork", "spawn", "thread", "redirected", "replaced", "closed"]


def test_from_any_process(run, script):
    """Any process of a job reports, with any stdout and any start method."""
    ended = run(Payload.of_source(script(PROCESSES), None))

    printed, reported = read(*ended.output.splitlines())
    assert 0 == ended.code, ended.errors
    assert dict.fromkeys(NAMES, 1) == reported.metrics
    assert ["unfinished", "finished"] == [text for text in printed if "ML job" not in text and text.strip("-")]


def test_from_a_command(run, script):
    """Programs that a command starts can report."""
    source = script("from airflow_provider_mljobs import report; report.progress(1)").parent

    ended = run(Payload.of_source(source, ["python", "-m", "job"]))

    assert 1 == read(*ended.output.splitlines())[1].progress.fraction


def test_many_at_once(run, script):
    """Reports of several processes that print meanwhile stay whole lines."""
    text = """
import multiprocessing
from airflow_provider_mljobs import report

def work(rank):
    for step in range(300):
        print("x" * 80)
        report.metrics(step=step, **{f"loss/{rank}": step, f"a long name of a metric {rank}" + "." * 60: step})

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(work, range(4))
"""
    ended = run(Payload.of_source(script(text), None))

    lines = ended.output.splitlines()
    assert 1200 == len([text for text in lines if text.startswith(MARK) and text.endswith("}")])
    assert {299} == set(read(*lines)[1].metrics.values())
    assert ["x" * 80] * 1200 == [text for text in read(*lines)[0] if text.startswith("x")]


REPORTS_TWICE = """
import subprocess, sys
from airflow_provider_mljobs import report
print("before")
report.metrics(a=1)
print("between")
child = "from airflow_provider_mljobs import report; report.metrics(b=1)"
subprocess.run([sys.executable, "-c", child], stdout=subprocess.PIPE)
print("behind")
"""


def test_a_file_as_stdout(tmp_path, run, script):
    """Processes that share a file as stdout don't overwrite each other's lines."""
    with (tmp_path / "log").open("w") as log:
        run(Payload.of_source(script(REPORTS_TWICE), None), stdout=log)

    printed, reported = read(*(tmp_path / "log").read_text().splitlines())
    assert {"a": 1, "b": 1} == reported.metrics
    assert ["before", "between", "behind"] == [text for text in printed if text.startswith("be")]


def test_a_socket_as_stdout(run, script):
    """A socket can't be opened again, so the report goes to the process's own stdout."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        run(Payload.of_source(script(REPORTS_TWICE), None), stdout=theirs)
        theirs.shutdown(socket.SHUT_WR)
        text = ours.makefile().read()

    assert {"a": 1} == read(*text.splitlines())[1].metrics


def test_nobody_reads_any_more(job, monkeypatch, tmp_path):
    """A report to a pipe without a reader, or to none, is lost; the job continues."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path / "nowhere"):
        monkeypatch.setenv("MLJOBS_STDOUT", str(place))
        report.progress(0.5)

    assert ([], Reported()) == job()


def test_very_many_metrics(job):
    """Very many metrics take several lines, each short enough for one write to a pipe."""
    values = {f"{'ä' * 90} {number}": float(number) for number in range(99)}

    report.metrics(step=1, **values)

    assert values == job()[1].metrics
    assert 4096 > max(len(text) for text in (Path.cwd() / "log").read_bytes().splitlines())


def test_numbers_of_libraries(job):
    """Scalars of numpy and torch are numbers; NaN and infinities are reported as no value."""
    report.metrics(
        single=np.float32(0.5),
        whole=np.int64(7),
        array=np.array([[2.5]]),
        nan=float("nan"),
        infinite=-np.inf,
        large=10**300,
    )

    reported = job()[1]
    assert {"single": 0.5, "whole": 7, "array": 2.5, "nan": None, "infinite": None, "large": None} == reported.metrics
    assert [None] == [value for _, _, value in reported.series["nan"]]
    json.dumps(reported.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: report.progress(40), ValueError, "fraction must be from 0 to 1, e.g. 0.4 for 40 %; got 40."),
        (lambda: report.progress(-0.1), ValueError, "fraction must be from 0 to 1, e.g. 0.4 for 40 %; got -0.1."),
        (lambda: report.progress(math.nan), ValueError, "fraction must be from 0 to 1, e.g. 0.4 for 40 %; got nan."),
        (lambda: report.progress("0.4"), TypeError, "fraction must be a number, got '0.4'."),
        (lambda: report.progress(0.4, 4), TypeError, "message must be a text, got 4."),
        (lambda: report.metrics(), ValueError, "metrics() needs at least one value"),  # noqa: PLW0108 (as the others)
        (lambda: report.metrics(auc="0.9"), TypeError, "Metric 'auc' must be a number, got '0.9'."),
        (lambda: report.metrics(auc=None), TypeError, "Metric 'auc' must be a number, got None."),
        (lambda: report.metrics(done=True), TypeError, "Metric 'done' must be a number, got True."),
        (lambda: report.metrics(n=10**400), TypeError, "Metric 'n' must be a number"),
        (lambda: report.metrics(loss=np.array([1, 2])), TypeError, "Metric 'loss' must be a number"),
        (lambda: report.metrics({"auc": 0.9}, a=1), TypeError, "step must be a number, got {'auc': 0.9}."),
        (lambda: report.metrics(**{"x" * 101: 1}), ValueError, "The name of a metric must have 1 to 100 printable"),
        (lambda: report.metrics(__classname__=1), ValueError, "not begin with '__'; got '__classname__'"),
        (lambda: report.artifact("nowhere"), ValueError, "No file or directory 'nowhere'"),
        (lambda: report.artifact(None), TypeError, "NoneType"),
        (lambda: report.artifact("."), ValueError, "it contains the job's directory"),
        (lambda: report.asset(4), TypeError, "uri must be a text"),
        (lambda: report.asset(""), ValueError, "uri must have 1 to 1000 printable characters"),
        (lambda: report.asset("s3://a\nb"), ValueError, "printable characters, got 's3://a"),
        (lambda: report.asset("s3://a", {"model": object()}), TypeError, "extra must be JSON"),
        (lambda: report.asset("s3://a", {"text": "x" * 5000}), ValueError, "The asset takes 5"),
        (lambda: report.asset("s3://a", {"a": [[[[[[[[1]]]]]]]]}), ValueError, "extra must have at most 8 levels"),
        (lambda: report.asset("s3://a", {"__var": 1}), ValueError, "not begin with '__'; got '__var'"),
    ],
)
def test_arguments_that_cannot_be_meant(job, call, error, message):
    """An invalid argument raises an error with its value, and reports nothing."""
    with pytest.raises(error) as raised:
        call()

    assert message in str(raised.value)
    assert ([], Reported()) == job()


def test_what_is_nearly_right(job):
    """The sum of ten tenths is 100 %, and a long message is cut."""
    report.progress(sum([0.1] * 10) + 1e-12, "x" * 500)

    assert (1.0, "x" * 199 + "…") == (job()[1].progress.fraction, job()[1].progress.message)


def test_artifacts_are_kept(job):
    """Artifacts are copied beside the job's result, under their names; files that are there already stay."""
    results = Path.cwd() / "results"
    for name in ("out/model.json", "charts/roc/a.txt", "results/deep/there.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)

    report.artifact("out/model.json")
    report.artifact(Path("charts"))
    report.artifact(results / "deep" / "there.txt")
    Path("out/model.json").write_text("newer")
    report.artifact("out/model.json")

    assert ("model.json", "charts", "deep/there.txt") == job()[1].artifacts
    assert "newer" == (results / "model.json").read_text()
    assert "charts/roc/a.txt" == (results / "charts/roc/a.txt").read_text()
    assert ["charts", "deep", "model.json"] == sorted(path.name for path in results.iterdir())


@pytest.mark.parametrize("name", ["input", "results/output/mljob_result", "results/input/x"])
def test_the_launchers_own_files_are_no_artifacts(job, name):
    """Names of the launcher's files are refused, because clean-up removes these."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("")

    with pytest.raises(ValueError, match="is reserved for the launcher"):
        report.artifact(name)


def test_an_artifact_that_cannot_be_kept(job, capsys):
    """An artifact that can't be copied is lost with a message; the job continues."""
    Path("model").mkdir()
    Path("results/model").write_text("a file is in the way")

    report.artifact("model")

    assert "Could not save artifact 'model': " in capsys.readouterr().err
    assert () == job()[1].artifacts


def test_outside_a_job(tmp_path, monkeypatch, capsys):
    """Outside a job a report prints a line and copies nothing."""
    monkeypatch.delenv("MLJOBS_STDOUT", raising=False)
    (tmp_path / "model.json").write_text("{}")

    report.progress(0.4, "epoch 4/10")
    report.progress(0.29)
    report.metrics(step=4, auc=0.91)
    report.artifact(tmp_path / "model.json")
    report.asset("s3://models/churn", {"auc": 0.91})

    assert [
        "progress 40 %: epoch 4/10",
        "progress 29 %",
        "metrics step=4 auc=0.91",
        f"artifact {tmp_path / 'model.json'}",
        's3://models/churn {"auc": 0.91}',
    ] == [text.removeprefix("asset ") for text in capsys.readouterr().out.splitlines()]


def test_a_stdout_that_is_closed(monkeypatch):
    """A report without a stdout prints and raises nothing."""
    monkeypatch.delenv("MLJOBS_STDOUT", raising=False)
    stdout = io.StringIO()
    stdout.close()
    monkeypatch.setattr(sys, "stdout", stdout)

    report.progress(0.4)


# Its way into the job.


def top(epochs):
    """Report by a global name of this module."""
    for epoch in range(epochs):
        report.progress((epoch + 1) / epochs)


def inside(epochs):
    """Report by a local name."""
    from airflow_provider_mljobs import report as told

    told.progress(epochs / epochs)


@pytest.mark.parametrize("function", [top, inside])
def test_functions_travel_as_source(call, function):
    """A function that reports travels as source, whether the import is in it or in its module."""
    ended = call(function, 4)

    assert "mljobs" in pack(function, "source").source
    assert 1 == read(*ended.output.splitlines())[1].progress.fraction


TEAM_JOB = """
from airflow_provider_mljobs import report
from mljobs import steps
report.progress(steps.DONE)
"""


@pytest.mark.parametrize("is_import", [False, True], ids=["in the source", "as an import"])
def test_a_team_package_named_mljobs(run, write, is_import):
    """A job with a package ``mljobs`` of its own reports."""
    files = {"mljobs/__init__.py": "", "mljobs/steps.py": "DONE = 1"}
    source = write("source", {"job.py": TEAM_JOB, **({} if is_import else files)})
    imports = [write("code", files) / "mljobs"] if is_import else []

    ended = run(Payload.of_source(source, "job.py", imports=imports, place=Place()))

    assert 0 == ended.code, ended.errors
    assert 1 == read(*ended.output.splitlines())[1].progress.fraction


def test_the_provider_as_the_source(run, write):
    """A source that has a package ``airflow_provider_mljobs`` runs with that one."""
    files = {"airflow_provider_mljobs/__init__.py": "", "airflow_provider_mljobs/report.py": "OWN = True"}
    job = "from airflow_provider_mljobs import report; assert report.OWN"

    ended = run(Payload.of_source(write("source", {**files, "job.py": job}), "job.py"))

    assert 0 == ended.code, ended.errors


def test_an_import_named_as_the_provider_is_refused(write):
    """An import named ``airflow_provider_mljobs`` would take ``report`` away from the job."""
    with pytest.raises(InvalidJobSpecError, match="it would hide the job's own 'airflow_provider_mljobs'"):
        Payload.of_function(top, imports=[(write("utils", {"a.py": ""}), "airflow_provider_mljobs")], place=Place())


def test_an_installed_provider_stays_importable(run, script):
    """A container that has the whole provider installed has its other modules beside ``report``."""
    text = "from airflow_provider_mljobs import __version__, report, retries; report.progress(1); print(__version__)"

    ended = run(Payload.of_source(script(text), None))

    assert 0 == ended.code, ended.errors
    assert __version__ in ended.output


def test_an_own_image(tmp_path):
    """An image that has copied ``report.py``, and nothing else, reports to the container's log."""
    package = tmp_path / "airflow_provider_mljobs"
    package.mkdir()
    shutil.copyfile(report.__file__, package / "report.py")
    child = "from airflow_provider_mljobs import report; report.metrics(auc=0.9)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}], stdout=-3, check=True)"

    with (tmp_path / "log").open("w+") as log:
        environment = {"PYTHONPATH": str(tmp_path), "MLJOBS_STDOUT": f"/proc/{os.getpid()}/fd/{log.fileno()}"}
        subprocess.run([sys.executable, "-S", "-c", program], env=environment, check=True)
        log.seek(0)
        lines = log.read().splitlines()

    assert {"auc": 0.9} == read(*lines)[1].metrics


# In Airflow.


def test_somebody_elses_lines_stay():
    """Only reports and their line feeds are removed; other text in the same line stays."""
    printed, reported = read(
        "first",
        "",
        "",
        line(metrics={"a": 1}, at=NOW),
        f"12% done {line(metrics={'b': 2})} and more",
        "last",
    )

    assert ["first", "", "12% done ", "and more", "last"] == printed
    assert {"a": 1, "b": 2} == reported.metrics


def test_behind_the_prefix_of_ray():
    """A report behind Ray's prefix is read, and the prefix removed."""
    text = "\x1b[36m(train pid=12, ip=10.0.0.2)\x1b[0m " + line(metrics={"a": 1})

    assert ([], {"a": 1}) == (read(text)[0], read(text)[1].metrics)


@pytest.mark.parametrize(
    "text",
    [
        f"{MARK}{{",
        f"{MARK}4",
        f"{MARK}null",
        line(),
        line(progress="0.4"),
        line(progress=None),
        line(progress=0.4, message=7),
        line(progress=0.4, at="now"),
        line(progress=0.4, at=1e300),
        line(metrics=[1]),
        line(metrics={"a": "1"}),
        line(metrics={"a": True}),
        line(metrics={"": 1}),
        line(metrics={"__classname__": 1}),
        line(metrics={"a": 1}, step="x"),
        line(artifact="../../etc/passwd"),
        line(artifact="/etc/passwd"),
        line(artifact="a\nb"),
        line(artifact=["a"]),
        line(asset="", extra={}),
        line(asset="s3://a", extra=[1]),
        line(asset="s3://a", extra={"__type": 1}),
        line(asset="s3://a", extra={"a": [[[[[[[[[1]]]]]]]]]}),
        line(asset="s3://" + "a" * 2000),
        line(asset="s3://a", extra={"a": "x" * 5000}),
        MARK + '{"metrics":{"a":' + "[" * 4000,
        MARK + '{"metrics":{"a":' + "9" * 4000 + "}}",
    ],
)
def test_what_only_looks_like_a_report_is_shown(text):
    """A line that only looks like a report stays in the log."""
    assert ([text], Reported()) == read(text)


def test_what_can_be_mended_is():
    """The usable parts of a flawed report are kept, in a form for Airflow's database."""
    text = MARK + '{"progress":7,"message":"\\u0000\\ud800\\u001b[31mred","progress":2}'
    printed, reported = read(text, MARK + '{"metrics":{"a":NaN,"b":1e999,"c":-Infinity}}')

    assert ["progress 100 %: red"] == [text.replace("\ufffd", "") for text in printed]
    assert {"a": None, "b": None, "c": None} == reported.metrics


TEXTS = st.text(max_size=9)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from(["progress", "metrics", "artifact", "asset", "at", "step", "message", "extra"])
REPORTS = st.dictionaries(KINDS, DOCUMENTS, max_size=4).map(lambda document: MARK + json.dumps(document))


@given(st.lists(REPORTS | TEXTS.map(lambda text: MARK + text), max_size=4))
def test_hostile_lines(lines):
    """Hostile lines raise nothing, and the state stays JSON that can be read again."""
    _, reported = read(*lines)

    written = json.dumps(reported.to_json(), allow_nan=False)
    assert reported == Reported.from_json(json.loads(written))
    without_reports("\n".join(lines))


@given(DOCUMENTS)
def test_hostile_state(value):
    """A hostile state in XCom raises nothing, and is read as JSON."""
    names = ("progress", "metrics", "series", "artifacts", "assets")

    Reported.from_json(dict.fromkeys(names, value))


def test_a_flood_is_kept_small():
    """The state of any number of reports fits into an XCom."""
    lines = [line(metrics={f"name {number} {'x' * 80}": number}, at=NOW + number) for number in range(10_000)]
    lines += [line(artifact=f"{number}/{'x' * 900}") for number in range(1000)]
    lines += [line(asset=f"s3://{number}", extra={"text": "x" * 3000}) for number in range(1000)]

    _, reported = read(*lines)

    assert (100, 100, 20) == (len(reported.metrics), len(reported.artifacts), len(reported.assets))
    assert 250_000 > len(json.dumps(reported.to_json()))


def test_a_log_may_be_read_again():
    """Reading reports twice gives the same state as once, also with others between them."""
    lines = [line(metrics={"loss": 1 / number}, step=number, at=NOW + number) for number in range(1, 200)]
    lines += [line(progress=0.5, at=NOW), line(progress=0.6, at=NOW + 1), line(artifact="a"), line(asset="s3://a")]

    once = read(*lines)[1]
    twice = read(*lines[50:], before=once)[1]

    assert once == twice
    assert 0.6 == twice.progress.fraction


def measured(name, value, at, step=None):
    """Return a report of one metric."""
    return Reported(series={name: [(at, step, value)]})


def test_long_series_are_thinned_evenly():
    """500 points remain in all, evenly in time; the first, the last and short series stay."""
    reported = Reported()
    for turn in range(100):
        loss = [measured("loss", float(step), NOW + step, step) for step in range(turn * 100, turn * 100 + 100)]
        reported = reported.folded([*loss, measured("auc", 0.5 + turn / 200, NOW + turn * 100, turn)])

    assert 100 == len(reported.series["auc"])
    times = [at - NOW for at, _, _ in reported.series["loss"]]
    assert (0, 9999) == (times[0], times[-1])
    assert 200 <= len(times) <= 400
    assert 100 > max(later - earlier for earlier, later in pairwise(times))
    assert {"loss": 9999, "auc": 0.995} == reported.metrics


def test_metrics_of_several_instances():
    """A metric of several instances has the last value by time, and the points of all."""
    first = [measured("loss", 1.0, NOW + 1), measured("loss", 3.0, NOW + 3)]
    second = [measured("loss", 2.0, NOW + 2)]

    reported = Reported().folded(first).folded(second)

    assert {"loss": 3.0} == reported.metrics
    assert [1.0, 2.0, 3.0] == [value for _, _, value in reported.series["loss"]]


def test_progress_in_the_log():
    """The log shows progress every ten seconds and at its end; the state has the last."""
    lines = [line(progress=number / 1000, message="training", at=NOW + number / 10) for number in range(1001)]

    printed, reported = read(*lines)

    assert [f"progress {percent} %: training" for percent in range(0, 100, 10)] == printed[:10]
    assert ["progress 100 %: training"] == printed[10:]
    assert Progress(1.0, "training", NOW + 100) == reported.progress


def test_a_whole_log():
    """A log as a whole reads as it does line by line."""
    text = "\n".join(["a", "", line(progress=0.1, at=1), "b", line(metrics={"x": 1}), ""])

    assert "a\nprogress 10 %\nb\n" == without_reports(text)
    assert "a\n\nb" == without_reports("a\n\nb")


def test_a_line_that_takes_long():
    """A line that begins like Ray's prefix again and again takes little time."""
    begin = time.process_time()
    lines, reported = read("(pid=" + "1" * 50_000 + "(" + line(progress=0.5))

    assert (2, 0.5) == (len(lines), reported.progress.fraction)
    assert time.process_time() - begin < budget(1)
