"""Files in directories of any name: on the way to a stage, on the way back, and below the emulator's own root."""

import io
import tempfile
from pathlib import Path

import pytest

from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL, STAGE, served

NAMES = [
    "a [b] c", "[abc]", "[[]x]", "x*y", "what?", "50%25", "it's", 'say "x"', "a#b", "$x & y;z", "back\\slash", "é 😀",
    "-- no comment", "*z",
]  # fmt: skip
# All at once, where a test takes long. DuckDB can't keep its files below the last one.
MIXED = ["it's [b] x*y 50%25 a#b é 😀", '-- "$x" `id` &;', "what? back\\slash"]


def quoted(path):
    """Write a path in the form that a statement takes."""
    return "'file://" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


@pytest.fixture
def cursor(connection):
    """A session with an empty stage."""
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE STAGE PATHS")
    return cursor


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Return a function that moves Python's temporary files to a directory of a given name."""

    def temporary(name):
        directory = tmp_path / name
        directory.mkdir(parents=True)
        monkeypatch.setenv("TMPDIR", str(directory))
        monkeypatch.setattr(tempfile, "tempdir", None)
        return directory

    return temporary


def write(directory, *names):
    """Write files that hold their own names."""
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).write_text(name)
    return directory


def put(cursor, path, options=""):
    """Upload the files of a path; returns their names."""
    cursor.execute(f"PUT {quoted(path)} @PATHS AUTO_COMPRESS = FALSE {options}")
    return sorted(row[0] for row in cursor.fetchall())


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(cursor, tmp_path, name):
    """A file travels to a stage and back through directories of any name."""
    source, target = write(tmp_path / name, "data.csv"), write(tmp_path / "back" / name)
    put(cursor, source / "data.csv")
    cursor.execute(f"GET @PATHS/ {quoted(target)}")

    assert "data.csv" == (target / "data.csv").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files(cursor, tmp_path, name):
    """The file itself may have any name."""
    source, target = write(tmp_path / "source", name), write(tmp_path / "target")

    assert [name] == put(cursor, source / name)
    cursor.execute(f"GET @PATHS/ {quoted(target)}")
    assert [name] == [path.name for path in target.iterdir()]


@pytest.mark.parametrize(
    ("folder", "pattern", "expected"),
    [
        ("plain", "*.csv", ["a1.csv", "a2.csv", "b1.csv"]),
        ("it's [1]", "*.csv", ["a1.csv", "a2.csv", "b1.csv"]),
        ("it's [1]", "a?.csv", ["a1.csv", "a2.csv"]),
        ("x* [?]", "b*", ["b1.csv"]),
        # Only the connector takes these for wildcards.
        ("plain", "[ab]1.csv", ["a1.csv", "b1.csv"]),
    ],
)
def test_wildcards(cursor, tmp_path, folder, pattern, expected):
    """Wildcards in a file's name work in a directory of any name."""
    source = write(tmp_path / folder, "a1.csv", "a2.csv", "b1.csv")

    assert expected == put(cursor, source / pattern)


def test_brackets_mean_themselves(cursor, tmp_path):
    """A file whose name has brackets is uploaded itself, not the files that the brackets match."""
    source = write(tmp_path / "source", "data[12].csv", "data1.csv", "data2.csv")

    assert ["data[12].csv"] == put(cursor, source / "data[12].csv")


def test_escaped_brackets(cursor, tmp_path):
    """Snowflake's own CLI escapes paths for the connector."""
    source = write(tmp_path / "[id]", "page.tsx")

    assert ["page.tsx"] == put(cursor, Path(str(source).replace("[", "[[]")) / "page.tsx")


def test_existing_files_are_kept(cursor, tmp_path):
    """Without OVERWRITE a staged file stays unchanged, also if its name has brackets."""
    put(cursor, write(tmp_path / "first", "x[1].csv") / "x[1].csv")
    second = write(tmp_path / "[second]", "x[1].csv", "y.csv")
    (second / "x[1].csv").write_text("changed by the second upload")
    put(cursor, second / "*.csv")
    before = cursor.execute("LIST @PATHS").fetchall()
    put(cursor, second / "x[1].csv", "OVERWRITE = TRUE")
    after = cursor.execute("LIST @PATHS").fetchall()

    assert [("paths/x[1].csv", 8), ("paths/y.csv", 5)] == [row[:2] for row in before]
    assert [("paths/x[1].csv", 28), ("paths/y.csv", 5)] == [row[:2] for row in after]


@pytest.mark.parametrize("path", ["/nowhere/x[1].csv", "x[1].csv"])
def test_streams(cursor, path):
    """A stream has the name in the statement."""
    cursor.execute(f"PUT {quoted(path)} @PATHS AUTO_COMPRESS = FALSE", file_stream=io.BytesIO(b"hello"))

    assert ["x[1].csv"] == [row[0] for row in cursor.fetchall()]
    assert [("paths/x[1].csv", 5)] == [row[:2] for row in cursor.execute("LIST @PATHS").fetchall()]


def test_missing_files(cursor, tmp_path):
    """A missing file is an error with its path."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError, match=r"File doesn't exist: .*\[x\]") as caught:
        put(cursor, tmp_path / "[x]" / "y.csv")

    assert 253006 == caught.value.errno


@pytest.mark.parametrize("name", MIXED)
def test_jobs(airflow, temporary, name):
    """Code, arguments and a DataFrame pass through a temporary directory of any name, both ways."""
    directory = temporary(name)
    source = write(directory / "source", "helper.py")
    (source / "helper.py").write_text("FACTOR = 3\n")
    (source / "train.py").write_text(
        "import sys\nimport pandas as pd\nfrom helper import FACTOR\n"
        "__return__ = pd.DataFrame({'a': [FACTOR * int(sys.argv[1])]})\n"
    )
    run = airflow.run_task(
        lambda: MLJobOperator(
            task_id="job",
            source=str(source),
            entrypoint="train.py",
            args=["14"],
            compute_pool=POOL,
            stage_name=STAGE,
            poll_interval=0.05,
        )
    )
    with MLJobHook() as hook:
        reference = run.xcom("job")
        values = hook.open(reference)["a"].tolist()
        (file,) = hook.download(reference, directory)

    assert [42] == values
    assert (directory, ".parquet") == (file.parent, file.suffix)


SPECIFICATION = """
spec:
  containers:
  - name: main
    image: /snowflake/images/tools/python:1
    env: {DATA: /data}
    command:
    - sh
    - -c
    - |
      pip --version &&
      python -c 'import snowflake.connector as c; print(c.connect().schema)' > "$DATA/schema"
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, source: stage, stageConfig: {name: "@FILES"}}]
"""


@pytest.mark.parametrize("name", MIXED[:2])
def test_roots(tmp_path, name):
    """The emulator's own tables, stages, volumes and programs may be below a directory of such a name."""
    from snowflake import connector

    with served(root=tmp_path / name) as server, connector.connect(**server.connection_kwargs) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE STAGE FILES")
        cursor.execute("CREATE TABLE FIRST AS SELECT * FROM (VALUES (1, 'x'), (2, 'y')) AS T(A, B)")
        cursor.execute("COPY INTO @FILES/out.csv FROM FIRST SINGLE = TRUE FILE_FORMAT = (COMPRESSION = NONE)")
        cursor.execute("CREATE TABLE SECOND LIKE FIRST")
        cursor.execute("COPY INTO SECOND FROM @FILES/out.csv")
        rows = cursor.execute("SELECT * FROM SECOND").fetchall()
        cursor.execute(f"EXECUTE JOB SERVICE IN COMPUTE POOL {POOL} NAME = HAND FROM SPECIFICATION $${SPECIFICATION}$$")
        (size,) = (row[1] for row in cursor.execute("LIST @FILES/schema").fetchall())

    assert [(1, "x"), (2, "y")] == rows
    assert len("PUBLIC\n") == size


@pytest.mark.parametrize("name", ["what?", "back\\slash"])
def test_unfit_roots(temporary, name):
    """A root unsuitable for the databases is refused by name, and a temporary one is made elsewhere."""
    from airflow_provider_mljobs.emulator import serve

    directory = temporary(name)
    with serve() as server:
        root = server.root

    assert not root.is_relative_to(directory)
    with pytest.raises(ValueError, match="choose a root without a question mark or a backslash"):
        serve(directory)
