import dataclasses
import io
import json
import zipfile

import pytest

from airflow_provider_mljobs.jobs.names import Identifier, Namespace
from airflow_provider_mljobs.jobs.outcome.results import JobResult
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.payload.sources import Place
from airflow_provider_mljobs.jobs.values.arguments import Arguments

LINE = "-" * 32
STARTED, FINISHED = f"{LINE}\nML job started\n{LINE}\n", f"{LINE}\nML job finished\n{LINE}\n"


def of(script, text):
    return Payload.of_source(script(text), None)


def with_manifest(packed, **changes):
    """Return a payload with a changed manifest."""
    old, new = zipfile.ZipFile(io.BytesIO(packed.archive)), io.BytesIO()
    with zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            content = old.read(name)
            archive.writestr(name, json.dumps(json.loads(content) | changes) if name == "mljob.json" else content)
    return dataclasses.replace(packed, archive=new.getvalue())


def test_a_scripts_result_is_its_global_return(run, script):
    """A script returns the value of its global __return__, as with snowflake.ml.jobs."""
    ended = run(of(script, "print('working')\n__return__ = {'auc': 0.9}"))

    assert 0 == ended.code
    assert ("result", True, {"auc": 0.9}) == tuple(ended.record[key] for key in ("kind", "success", "value"))


def test_banners_stand_around_what_the_payload_prints(run, script):
    """The banners, at which Snowflake's client cuts the log, enclose the payload's output and nothing else."""
    ended = run(of(script, "import sys\nprint('out')\nprint('err', file=sys.stderr)"))

    assert f"{STARTED}out\n{FINISHED}" == ended.output
    assert "err\n" == ended.errors


@pytest.mark.parametrize("text", ["1 / 0", "import sys\nsys.exit(3)"])
def test_a_run_that_does_not_reach_its_end_has_no_end_banner(run, script, text):
    """A traceback is part of the payload's output, as with Snowflake's launcher."""
    assert run(of(script, text)).output == STARTED


@pytest.mark.parametrize("text", ["1 / 0", "import sys\nsys.exit(3)", "", "print('half a line', end='')"])
def test_the_last_line_says_that_the_log_is_whole(run, script, text):
    """However the payload ends, the launcher prints a last line, by which a reader knows that nothing is missing."""
    assert run(of(script, text)).has_end


def test_a_script_may_end_with_exit_zero(run, script):
    """A script may end with sys.exit(0): __return__ counts, and the end banner is printed."""
    ended = run(of(script, "import sys\n__return__ = 5\nsys.exit(0)"))

    assert (0, 5, STARTED + FINISHED) == (ended.code, ended.record["value"], ended.output)


def test_an_exception_is_the_result(run, script):
    """Result and log of an exception have its type, its text, and the frames of the payload."""
    ended = run(of(script, "def inner():\n    raise ValueError('no rows')\n\ninner()"))
    metadata = ended.record["metadata"]
    frames = metadata["traceback"].splitlines()

    assert 1 == ended.code
    assert (False, None) == (ended.record["success"], ended.record["value"])
    assert ("builtins.ValueError", "no rows", "ValueError('no rows')") == (
        metadata["type"],
        metadata["message"],
        metadata["repr"],
    )
    assert frames[0].endswith('/app/job.py", line 4, in <module>')
    assert "line 2, in inner" in metadata["traceback"]
    assert f"Traceback (most recent call last):\n{metadata['traceback']}ValueError: no rows\n" == ended.errors


async def fails_late():
    raise LookupError("late")


def imports_what_is_not_there():
    import not_there

    return not_there


def fails_in_a_closure(message="x" + "y"):
    raise KeyError(message)


@pytest.mark.parametrize("function", [fails_late, imports_what_is_not_there, fails_in_a_closure])
def test_tracebacks_of_functions_start_in_the_function(call, function):
    """A function's traceback has no frames of the launcher, of asyncio and of the import system."""
    ended = call(function)

    assert 1 == ended.code
    assert f"in {function.__name__}" in ended.record["metadata"]["traceback"].splitlines()[0]


def test_a_module_that_the_job_lacks_is_missed_where_the_payload_imports_it(run, script):
    """The traceback of a missing module ends at the payload's import, without frames of the import system."""
    script("import not_there", "helper.py")
    job = script("import helper")
    metadata = run(Payload.of_source(job.parent, "job.py")).record["metadata"]

    assert "No module named 'not_there'" == metadata["message"]
    assert "job.py" in metadata["traceback"].splitlines()[0]


def test_exceptions_that_can_not_be_written_are_still_a_result(run, script):
    """An exception with a broken __str__ is recorded as a failure."""
    ended = run(
        of(
            script,
            "class Bad(Exception):\n    def __str__(self):\n        return 1 / 0\n    __repr__ = __str__\nraise Bad",
        )
    )
    metadata = ended.record["metadata"]

    assert ("__main__.Bad", "<str of Bad raised ZeroDivisionError>", "<repr of Bad raised ZeroDivisionError>") == (
        metadata["type"],
        metadata["message"],
        metadata["repr"],
    )


@pytest.mark.parametrize(
    ("argument", "code", "errors"),
    [("0", 0, ""), ("None", 0, ""), ("", 0, ""), ("3", 3, ""), ("256", 0, ""), ("'text'", 1, "text\n")],
)
def test_exit_codes_are_those_of_python(run, script, argument, code, errors):
    """sys.exit ends a job as it ends any process; every code but 0 is a failure."""
    ended = run(of(script, f"import sys\nsys.exit({argument})"))

    assert (code, errors, code == 0) == (ended.code, ended.errors, ended.record["success"])


def test_a_failing_exit_says_where(run, script):
    """The result of sys.exit(3) begins with the script's frame."""
    metadata = run(of(script, "import sys\nsys.exit(3)")).record["metadata"]

    assert ("builtins.SystemExit", "3") == (metadata["type"], metadata["message"])
    assert "job.py" in metadata["traceback"].splitlines()[0]


def frame():
    import pandas as pd

    return pd.DataFrame({"a": [1, 2]})


def mixed_frame():
    import pandas as pd

    return pd.DataFrame({"a": [1, "x", {"y"}]})


def table():
    import pyarrow as pa

    return pa.table({"a": [1, 2]})


def array():
    import numpy as np

    return np.arange(3)


def objects():
    import numpy as np

    return np.array([{}, set()], dtype=object)


def complex_number():
    return 1 + 2j


@pytest.mark.parametrize(
    ("function", "protocol", "file", "kind"),
    [
        (frame, "pandas", "mljob_extra_0.parquet", "DataFrame"),
        (mixed_frame, "cloudpickle", "mljob_extra.pkl", "DataFrame"),
        (table, "pyarrow", "mljob_extra_0.parquet", "Table"),
        (array, "numpy", "mljob_extra.npy", "numpy.ndarray"),
        (objects, "cloudpickle", "mljob_extra.pkl", "numpy.ndarray"),
        (complex_number, "cloudpickle", "mljob_extra.pkl", "builtins.complex"),
    ],
)
def test_values_that_are_no_json_are_saved_beside_the_result(call, function, protocol, file, kind):
    """Values that are no JSON are saved in the formats of snowflake.ml.jobs, and the result describes them."""
    ended = call(function)
    record, place = ended.record, ended.stage / "output" / file
    manifest = record["protocol"]["manifest"]

    assert 0 == ended.code, ended.errors
    assert (True, None, protocol) == (record["success"], record["value"], record["protocol"]["name"])
    assert str(place) in (manifest.get("path"), *manifest.get("paths", []))
    assert place.stat().st_size > 0
    assert record["metadata"]["type"].endswith(kind)


def test_saved_values_read_back(call):
    """Saved values are equal when they are read from their files."""
    import pandas as pd

    assert [1, 2] == list(pd.read_parquet(call(frame).stage / "output" / "mljob_extra_0.parquet").a)


def numpy_scalars():
    import numpy as np

    return {"auc": np.float32(0.5), "n": np.int64(3), "yes": np.bool_(True), "zero": np.array(7)}


def test_numpy_scalars_are_plain_numbers(call):
    """A scalar of numpy is JSON."""
    assert {"auc": 0.5, "n": 3, "yes": True, "zero": 7} == call(numpy_scalars).record["value"]


def test_values_that_can_not_be_saved_do_not_fail_the_run(run, script):
    """A run whose value can't be saved succeeds, and its result has the reason."""
    ended = run(of(script, "import threading\n__return__ = threading.Lock()"))

    assert 0 == ended.code
    assert ended.record["success"]
    assert "cannot pickle '_thread.lock' object" in ended.record["serialize_error"]


def test_nan_survives(run, script):
    """NaN is written as Python's JSON, and the readers of results restore it."""
    text = (run(of(script, "__return__ = [float('nan'), float('-inf')]")).stage / "output/mljob_result").read_text()

    assert '"value": [NaN, -Infinity]' in text


def test_payloads_of_another_python_are_refused_with_the_way_out(run):
    """A pickle of another Python is refused with advice, not with an UnpicklingError or a crash."""
    packed = with_manifest(Payload.of_function(complex_number), pickled_by={"python": "3.1", "cloudpickle": "3.1.0"})
    ended = run(packed)

    assert 1 == ended.code
    assert "The payload was pickled by Python 3.1, this container runs Python 3." in ended.record["metadata"]["message"]
    assert "" == ended.record["metadata"]["traceback"]
    assert STARTED not in ended.output


def test_payloads_of_another_protocol_are_refused(run, script):
    """The launcher refuses a manifest of another protocol."""
    ended = run(with_manifest(of(script, ""), protocol=99))

    assert (
        "The payload has protocol 99, its launcher protocol 2: submit the job again."
        == ended.record["metadata"]["message"]
    )


def test_requirements_that_can_not_be_installed_fail_the_job(run, script):
    """If pip fails, the payload doesn't run, and the error has the cause."""
    packed = Payload.of_source(script("print('never')"), None, pip_requirements=["there-is-no-such-package==1"])
    ended = run(packed, PIP_NO_INDEX="1")

    assert 1 == ended.code
    assert "never" not in ended.output
    assert "Installing there-is-no-such-package==1 with pip\n" in ended.output
    assert ended.record["metadata"]["message"].startswith(
        "pip could not install ['there-is-no-such-package==1']: the package index has no such package"
    )


PIP = "import sys, pathlib\nfile = pathlib.Path(sys.argv[-1])\nprint(file.parent, file.read_text().splitlines())"


def test_pip_reads_the_requirements_beside_the_payload(run, script):
    """The line "-r more.txt" in requirements.txt names a file beside it. A stand-in for pip prints its input."""
    script("# what we need\n-r more.txt\nnumpy", "requirements.txt")
    script(PIP, "pip.py")
    job = script("import os\nprint(os.getcwd())")
    printed = run(Payload.of_source(job.parent, "job.py", pip_requirements=["lightgbm==4.*"])).output.splitlines()

    assert "Installing -r requirements.txt, lightgbm==4.* with pip" == printed[0]
    assert f"{printed[-4]} ['-r requirements.txt', 'lightgbm==4.*']" == printed[1]


def test_requirements_without_any_need_no_pip(run, script):
    """A requirements.txt with only comments doesn't start pip."""
    script("# numpy\n\n", "requirements.txt")
    job = script("")

    assert STARTED + FINISHED == run(Payload.of_source(job.parent, "job.py")).output


def test_the_payload_is_the_working_directory_and_importable(run, script):
    """The payload finds its files by relative paths and its modules by name, wherever the entrypoint is."""
    script("VALUE = 1", "helper.py")
    script("2", "data/two.txt")
    start = script(
        "import helper, os, sys\n"
        "text = open('data/two.txt').read()\n"
        "__return__ = [helper.VALUE, text, os.environ['MLRS_PAYLOAD_DIR'] == os.getcwd() == sys.path[0]]",
        "pkg/start.py",
    )
    ended = run(Payload.of_source(start.parents[1], "pkg/start.py"))

    assert 0 == ended.code, ended.errors
    assert [1, "2", True] == ended.record["value"]


def test_zip_files_of_the_payload_are_importable_also_by_child_processes(run, script):
    """Zip files are importable, as with snowflake.ml.jobs; other files named .zip are ignored."""
    script("no zip", "not.zip")
    job = script(
        "import packed, subprocess, sys\n"
        "child = subprocess.check_output([sys.executable, '-c', 'import packed; print(packed.VALUE)'], text=True)\n"
        "__return__ = [packed.VALUE, child.strip()]"
    )
    with zipfile.ZipFile(job.parent / "libs.zip", "w") as archive:
        archive.writestr("packed.py", "VALUE = 5")
    ended = run(Payload.of_source(job.parent, "job.py"))

    assert 0 == ended.code, ended.errors
    assert [5, "5"] == ended.record["value"]


def test_files_that_the_job_saves_stay_on_the_stage(run, script):
    """Files in $MLRS_STAGE_RESULT_PATH, the documented place for models, stay on the stage."""
    ended = run(
        of(
            script,
            "import os, pathlib\n(pathlib.Path(os.environ['MLRS_STAGE_RESULT_PATH']) / 'model.txt').write_text('m')",
        )
    )

    assert "m" == (ended.stage / "model.txt").read_text()


def test_a_script_runs_as_main(run, script):
    """A script runs as __main__, so that the usual last lines work."""
    assert 1 == run(of(script, "if __name__ == '__main__':\n    __return__ = 1")).record["value"]


@pytest.mark.parametrize(("function", "expected"), [(complex_number, "(1+2j)"), (frame, "   a\n0  1\n1  2")])
def test_what_the_launcher_writes_the_reader_reads(call, spec, function, expected):
    """The provider reads the result that the launcher writes."""
    ended = call(function)
    directory = spec().stage / "payload_1" / "MLJOB_TRAIN_1" / "output"
    result = JobResult.parse((ended.stage / "output" / "mljob_result").read_text(), directory)

    assert result.success
    assert expected == result.reference.repr
    assert result.reference.stage_paths[0].startswith("@DB.ML.PAYLOADS/payload_1/MLJOB_TRAIN_1/output/mljob_extra")


@pytest.mark.parametrize(
    "text", ["sys.stdout.close()\nsys.stderr.close()", "sys.stdout = sys.stderr = None"], ids=["closed", "replaced"]
)
@pytest.mark.parametrize(("end", "success"), [("", True), ("\nsys.exit('no')", False), ("\n1 / 0", False)])
def test_a_run_without_streams_has_a_result(run, script, text, end, success):
    """A payload that closes stdout and stderr has a result; only its log ends early."""
    ended = run(of(script, f"import sys\n{text}{end}"))

    assert success is ended.record["success"]
    assert (not success) is bool(ended.code)


@pytest.mark.parametrize("end", ["", "sys.exit(3)"])
def test_a_forked_child_leaves_result_and_directory_to_its_parent(run, script, end):
    """The end of a forked child changes neither the result nor the directory of its parent."""
    text = f"""
import os, sys
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    open("made by the parent", "w").close()
    __return__ = os.waitstatus_to_exitcode(status)
else:
    {end or "pass"}
"""
    ended = run(of(script, text))

    assert (True, 3 if end else 0) == (ended.record["success"], ended.record["value"])


def test_a_returned_exception_is_a_value(run, script):
    """A returned exception is saved like any object."""
    ended = run(of(script, "__return__ = ValueError('returned')"))

    assert (0, True, "cloudpickle") == (ended.code, ended.record["success"], ended.record["protocol"]["name"])


def test_a_script_is_compiled_as_it_stands(run, script):
    """The launcher's imports from __future__ don't change the payload's annotations."""
    ended = run(of(script, "def f(x: int): ...\n__return__ = f.__annotations__['x'] is int"))

    assert True is ended.record["value"]


ML = Place(namespace=Namespace(Identifier("DB"), Identifier("ML")))
SHOW = "import os, sys\nprint(sys.argv, os.path.basename(os.getcwd()))\n__return__ = 5"


@pytest.mark.parametrize(
    ("entrypoint", "arguments"),
    [
        (["python", "train.py", "--x"], "['train.py', '--x', 'a b']"),
        (["python3", "-c", "import sys, os; print(sys.argv, 'app')"], "['-c', 'a b']"),
        (["bash", "run.sh", "1"], "['train.py', '1', 'a b']"),
        (["./run.sh", "1"], "['train.py', '1', 'a b']"),
        (["run.sh", "1"], "['train.py', '1', 'a b']"),
        (["env", "X=1", "python", "train.py"], "['train.py', 'a b']"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_commands_run_with_the_tasks_arguments(run, script, entrypoint, arguments):
    """A command of the container or the payload runs in the payload's directory; ``python`` is the job's."""
    job = script(SHOW, "train.py")
    script('#!/bin/sh\nexec python train.py "$@"\n', "run.sh").chmod(0o755)
    ended = run(Payload.of_source(job.parent, entrypoint), Arguments.of_script(["a b"]))

    assert f"{STARTED}{arguments} app\n{FINISHED}" == ended.output
    assert (0, True, None) == (ended.code, ended.record["success"], ended.record["value"])


def test_a_command_that_is_a_python_file_runs_as_a_script(run, script):
    """A command that begins with a Python file has a script's result."""
    job = script(SHOW, "train.py")
    ended = run(Payload.of_source(job.parent, ["train.py", "--x"]), Arguments.of_script(["y"]))

    assert (5, f"{STARTED}['train.py', '--x', 'y'] app\n{FINISHED}") == (ended.record["value"], ended.output)


def test_one_file_may_be_run_by_a_command(run, script):
    """``torchrun train.py`` runs one file, without a directory."""
    payload = Payload.of_source(script(SHOW, "train.py"), ["python", "train.py"])

    assert f"{STARTED}['train.py'] app\n{FINISHED}" == run(payload).output


@pytest.mark.parametrize(
    ("text", "code", "end"),
    [
        ("exit 3", 3, "failed with exit code 3"),
        ("kill -KILL $$", 137, "was killed by SIGKILL"),
        ("kill -TERM $$", 143, "was killed by SIGTERM"),
    ],
)
def test_a_command_that_fails_fails_the_job(run, script, text, code, end):
    """A job fails with the exit code of its command; for a signal, with that of shells."""
    ended = run(Payload.of_source(script(""), ["sh", "-c", text]))
    message = f"Command {['sh', '-c', text]} {end}; its output is in the log above."

    assert (code, False, message) == (ended.code, ended.record["success"], ended.record["metadata"]["message"])
    assert code == ended.record["metadata"]["exit_code"]
    assert STARTED == ended.output


def test_what_stops_the_job_stops_the_command(run, script):
    """A stop reaches the program, which may clean up; the test plays the platform."""
    stop = script(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('saved'))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "signal.pause()"
    )
    ended = run(Payload.of_source(stop, ["python", "job.py"]))

    assert (1, "saved") == (ended.code, ended.errors.splitlines()[0])
    assert "failed with exit code 1" in ended.record["metadata"]["message"]


@pytest.mark.parametrize(
    ("entrypoint", "message"),
    [
        (
            ["no-such-program", "train.py"],
            (
                "Command 'no-such-program' is neither a file of the payload nor a program of this "
                "container. If it comes with a package, add that to pip_requirements."
            ),
        ),
        (
            ["plain.sh"],
            (
                "'plain.sh' is not executable. Name its interpreter, e.g. ['bash', 'plain.sh'], or set its "
                "mode: chmod +x "
                "(files on a stage have none)."
            ),
        ),
        (
            ["./binary"],
            (
                "Could not start command './binary': Exec format error. A script needs a first line such "
                "as #!/bin/sh, or "
                "its interpreter in the command."
            ),
        ),
    ],
    ids=["unknown", "not executable", "no program"],
)
def test_commands_that_can_not_start_fail_the_job(run, script, entrypoint, message):
    """The message for a command that can't start has the reason and the fix."""
    job = script("")
    script("echo", "plain.sh")
    script("\0\1", "binary").chmod(0o755)
    ended = run(Payload.of_source(job.parent, entrypoint))

    assert (1, message) == (ended.code, ended.record["metadata"]["message"])


@pytest.mark.parametrize("entrypoint", ["job.py", ["python", "job.py"]], ids=["script", "command"])
def test_arguments_may_name_the_jobs_own_variables(run, script, entrypoint):
    """Only documented variables of the job that are set are expanded in arguments."""
    job = script("import sys\nprint(*sys.argv[1:], sep='|')")
    arguments = [
        "$MLRS_STAGE_RESULT_PATH/model",
        "${SNOWFLAKE_JOB_INDEX}of$SNOWFLAKE_JOBS_COUNT",
        "$HOME ${PATH} $MLRS_NOT_SET ${SNOWFLAKE_NOT_SET} $mlrs_stage_result_path $$ $(MLRS_STAGE_RESULT_PATH)",
        "$MLRS_STAGE_RESULT_PATHS ${MLRS_STAGE_RESULT_PATH",
    ]
    ended = run(
        Payload.of_source(job.parent, entrypoint),
        Arguments.of_script(arguments),
        SNOWFLAKE_JOB_INDEX="1",
        SNOWFLAKE_JOBS_COUNT="3",
        MLJOBS_PARALLEL="1",
    )
    _, _, _, printed, *_ = ended.output.splitlines()

    assert [f"{ended.stage}/model", "1of3", *arguments[2:]] == printed.split("|")


def test_the_entrypoints_own_arguments_are_expanded_too(run, script):
    """Variables in the arguments of a command are expanded like those of the task."""
    payload = Payload.of_source(script("import sys\n__return__ = sys.argv[1:]"), ["job.py", "$MLRS_RESULT_PATH"])

    assert ["output/mljob_result"] == run(payload).record["value"]


def test_sources_on_stages_run_where_they_were_copied(run, write):
    """A source on a stage runs with the requirements and modules beside its entrypoint."""
    code = write("code", {"main.py": "import helper\n__return__ = helper.VALUE", "helper.py": "VALUE = 7"})
    write("code", {"requirements.txt": "numpy", "pip.py": PIP})
    ended = run(Payload.of_source("@code/v1", "main.py", place=ML), staged={"@DB.ML.CODE/v1/": code})

    assert (0, 7) == (ended.code, ended.record["value"])
    assert "Installing -r requirements.txt with pip" == ended.output.splitlines()[0]


def test_one_file_on_a_stage_runs_alone(run, write):
    """The directory of one file on a stage isn't copied."""
    code = write("code", {"main.py": "import os\n__return__ = os.listdir()", "secret.txt": ""})
    payload = Payload.of_source("@code/main.py", None, place=ML)

    assert ["main.py"] == run(payload, staged={"@DB.ML.CODE/main.py": code / "main.py"}).record["value"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {},
            (
                "'@DB.ML.CODE/' is empty or missing: Snowflake copied no file from it. A path that ends in .py or "
                ".zip is one file, any other a directory."
            ),
        ),
        (
            {"train.py": "", "b/c.py": "", **{f"{index:02}.txt": "" for index in range(20)}},
            "Entrypoint 'main.py' is not in source '@DB.ML.CODE/', which has: "
            + ", ".join(f"{index:02}.txt" for index in range(20))
            + ", ….",
        ),
        (
            {"train.py": "", "b/c.py": ""},
            "Entrypoint 'main.py' is not in source '@DB.ML.CODE/', which has: b/, train.py.",
        ),
        (
            {"main.py": "", "environment.yml": ""},
            (
                "Source '@DB.ML.CODE/' has an environment.yml, but ML jobs take no conda environments. Write a "
                "requirements.txt."
            ),
        ),
        (
            {"main.py": "", "tools.py": ""},
            "Import 'tools' is hidden by module 'tools' of source '@DB.ML.CODE/'; give it another name.",
        ),
    ],
    ids=["nothing", "long list", "no entrypoint", "conda", "hidden import"],
)
def test_sources_on_stages_are_looked_at_in_the_job(run, write, files, message):
    """An invalid source on a stage, which the worker doesn't read, fails the job with the reason."""
    helper = write("dags", {"helper.py": ""}) / "helper.py"
    payload = Payload.of_source("@code/", "main.py", imports=[(helper, "tools")], place=ML)
    ended = run(payload, staged={"@DB.ML.CODE/": write("code", files)})

    assert (1, message) == (ended.code, ended.record["metadata"]["message"])
    assert STARTED not in ended.output
