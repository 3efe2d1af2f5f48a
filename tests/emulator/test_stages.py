import hashlib
import io
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path

import pytest

from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_stage
from airflow_provider_mljobs.emulator.stages.files import Stage
from airflow_provider_mljobs.emulator.stages.store import Stages

NAME = QualifiedName("S", "SC", "DB")


@pytest.fixture
def stage(cursor):
    """Create an empty stage and return its name."""
    cursor.execute("CREATE OR REPLACE STAGE files ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE') COMMENT = 'it''s'")
    return "files"


@pytest.fixture
def put(cursor, tmp_path):
    """Return a function that puts texts into a stage, uncompressed."""

    def put(target, texts, options=""):
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
        rows = []
        for name in texts:
            cursor.execute(f"PUT 'file://{folder / name}' '{target}' AUTO_COMPRESS = FALSE {options}")
            rows += cursor.fetchall()
        return rows

    return put


def listed(cursor, target):
    """Return the names in LIST."""
    return [row[0] for row in cursor.execute(f"LIST '{target}'").fetchall()]


def failure(cursor, sql, *binds):
    """Return the number and the text of the error of a statement."""
    from snowflake.connector.errors import Error

    with pytest.raises(Error) as caught:
        cursor.execute(sql, *binds)
    return caught.value.errno, caught.value.raw_msg


def test_describe_missing_stage(cursor):
    """A missing stage is error 2003, which clients rely on before they create it."""
    assert failure(cursor, "DESCRIBE STAGE IDENTIFIER(?)", ("nope",)) == (
        2003,
        "SQL compilation error:\nStage 'MLJOBS_DB.PUBLIC.NOPE' does not exist or not authorized.",
    )


def test_create(cursor):
    """A used name is an error, except with OR REPLACE or IF NOT EXISTS."""
    statement = "create stage if not exists identifier(?) encryption = ( type = 'SNOWFLAKE_SSE' ) comment = 'c'"
    cursor.execute("DROP STAGE IF EXISTS taken")
    first = cursor.execute(statement, ("taken",)).fetchall()
    second = cursor.execute(statement, ("mljobs_db.public.taken",)).fetchall()

    assert [("Stage area TAKEN successfully created.",)] == first
    assert [("TAKEN already exists, statement succeeded.",)] == second
    assert failure(cursor, "CREATE STAGE taken")[0] == 2002
    assert failure(cursor, "CREATE STAGE x URL = 's3://b'")[0] == 2
    assert failure(cursor, "CREATE STAGE nowhere.x")[0] == 2003


def test_describe_and_show(cursor, stage):
    """DESCRIBE and SHOW have Snowflake's columns."""
    described = cursor.execute("DESC STAGE files").fetchall()
    names = [column.name for column in cursor.description]
    cursor.execute("SHOW STAGES LIKE 'FIL%' IN SCHEMA mljobs_db.public")
    stage_row = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))

    assert names == ["parent_property", "property", "property_type", "property_value", "property_default"]
    assert ("STAGE_ENCRYPTION", "TYPE", "String", "SNOWFLAKE_SSE", "SNOWFLAKE_FULL") in described
    assert (stage_row["name"], stage_row["comment"], stage_row["type"]) == ("FILES", "it's", "INTERNAL NO CSE")


def test_put_list_get_remove(cursor, stage, put, tmp_path):
    """A file goes into a stage, is listed under the stage's lower-case name, comes back, and goes."""
    row = put("@files/a b/é", {"x.txt": "hello"})[0]
    names = listed(cursor, "@files")
    target = tmp_path / "out"
    target.mkdir()
    cursor.execute(f"GET '@files/a b/' 'file://{target}/'")
    removed = cursor.execute("REMOVE '@files/a b/'").fetchall()

    assert row == ("x.txt", "x.txt", 5, 5, "NONE", "NONE", "UPLOADED", "")
    assert names == ["files/a b/é/x.txt"]
    assert (target / "x.txt").read_text() == "hello"
    assert removed == [("files/a b/é/x.txt", "removed")]
    assert listed(cursor, "@files") == []


def test_prefixes(cursor, stage, put):
    """A path is a prefix, as in an object store: without a slash it also matches its siblings."""
    put("@files/dir", {"a": "1"})
    put("@files/dir2", {"a": "1", "b": "1"})

    assert listed(cursor, "@files/dir") == ["files/dir/a", "files/dir2/a", "files/dir2/b"]
    assert listed(cursor, "@files/dir/") == ["files/dir/a"]
    assert [row[0] for row in cursor.execute("LS @files PATTERN = '.*/b'").fetchall()] == ["files/dir2/b"]
    assert failure(cursor, "LIST @files PATTERN = '('")[0] == 100048


def test_get_without_match(cursor, stage, tmp_path):
    """The client reports a GET of nothing as 253006."""
    assert failure(cursor, f"GET @files/nope file://{tmp_path}/")[0] == 253006


def test_put_keeps_existing_files(cursor, stage, put, tmp_path):
    """Without OVERWRITE an existing file stays as it is, and the others arrive."""
    put("@files", {"old": "first"})
    put("@files", {"old": "second"})
    folder = tmp_path / "source"
    (folder / "new").write_text("new")
    cursor.execute(f"PUT file://{folder}/* @files AUTO_COMPRESS=FALSE")
    contents = {name: cursor.execute(f"LIST @{name}").fetchone()[1] for name in listed(cursor, "@files")}
    put("@files", {"old": "second"}, "OVERWRITE = TRUE")

    assert contents == {"files/new": 3, "files/old": 5}
    assert cursor.execute("LIST @files/old").fetchone()[1] == 6


def test_streams(connection, stage):
    """Snowpark's streams go in and out."""
    from snowflake.snowpark import Session

    with Session.builder.configs({"connection": connection}).create() as session:
        session.file.put_stream(io.BytesIO(b"hello"), "@files/d/h.txt", auto_compress=False)
        with session.file.get_stream("@files/d/h.txt") as content:
            text = content.read()

    assert text == b"hello"


def test_copy_files(cursor, stage, put):
    """COPY FILES copies below the target path, all or those that are named."""
    put("@files/src", {"a.py": "1", "b.txt": "2"})
    copied = cursor.execute("COPY FILES INTO @files/dst/ FROM @files/src/").fetchall()
    cursor.execute("COPY FILES INTO @files/one/ FROM @files/src/ FILES = ('a.py')")
    cursor.execute("COPY FILES INTO @files/two FROM @files/src/ PATTERN = '.*txt' DETAILED_OUTPUT = FALSE")

    assert copied == [("dst/a.py",), ("dst/b.txt",)]
    assert listed(cursor, "@files/one/") == ["files/one/a.py"]
    assert listed(cursor, "@files/two/") == ["files/two/b.txt"]
    assert failure(cursor, "COPY FILES INTO @files/x/ FROM @files/src/ FILES = ('nope')")[0] == 91016


def test_copy_files_into_folders(cursor, stage, put):
    """Folders below the source stay folders; a single file is copied by its name."""
    put("@files/src", {"a b.py": "1"})
    put("@files/src/deep/er", {"c": "3"})
    cursor.execute("COPY FILES INTO '@files/all x/' FROM @files/src/")
    one = cursor.execute("COPY FILES INTO @files/one/ FROM '@files/src/a b.py'").fetchall()
    cursor.execute("COPY FILES INTO @files/named/ FROM @files/src/ FILES = ('deep/er/c')")

    assert ["files/all x/a b.py", "files/all x/deep/er/c"] == listed(cursor, "@files/all")
    assert [("one/a b.py",)] == one
    assert ["files/named/deep/er/c"] == listed(cursor, "@files/named")


def test_copy_files_overwrites(cursor, stage, put):
    """A file of the same name is replaced; other files stay."""
    put("@files/src", {"a": "new content"})
    put("@files/dst", {"a": "old", "b": "kept"})
    cursor.execute("COPY FILES INTO @files/dst/ FROM @files/src/")
    rows = cursor.execute("LIST @files/dst/").fetchall()

    assert [("files/dst/a", 11), ("files/dst/b", 4)] == [row[:2] for row in rows]


def test_copy_files_between_stages(cursor, stage, put):
    """Source and target may be stages of different schemas; an empty source copies nothing."""
    cursor.execute("CREATE OR REPLACE SCHEMA elsewhere")
    cursor.execute("USE SCHEMA public")
    cursor.execute("CREATE STAGE elsewhere.target")
    put("@files/src", {"a": "1"})
    nothing = cursor.execute("COPY FILES INTO @elsewhere.target FROM @files/none/").fetchall()
    cursor.execute("COPY FILES INTO @mljobs_db.elsewhere.target FROM @files")
    copied = listed(cursor, "@elsewhere.target")
    cursor.execute("DROP SCHEMA elsewhere")

    assert [] == nothing
    assert ["target/src/a"] == copied


@pytest.mark.parametrize(
    ("statement", "errno"),
    [
        ("COPY FILES INTO @files/x/ FROM @nope", 2003),
        ("COPY FILES INTO @nope FROM @files", 2003),
        ("COPY FILES INTO @files/x/ FROM @files/../y", 1011),
        ("COPY FILES INTO @files/x/ FROM @files PATTERN = '('", 100048),
        ("COPY FILES INTO @files/x/ FROM @files COLOUR = 1", 1420),
        ("COPY FILES INTO @files/x/ FROM (SELECT '@files/a')", 2),
        ("COPY FILES INTO @files/x/ FROM 'snow://workspace/USER$.PUBLIC.\"w\"/versions/live/'", 2),
        ("COPY FILES INTO @files/x/ FROM snow://notebook/db.sc.n/versions/version$1/", 2),
        ("LIST snow://model/m/versions/v1", 2),
    ],
)
def test_copy_files_refusals(cursor, stage, statement, errno):
    """Missing stages and unsupported sources are errors."""
    assert errno == failure(cursor, statement)[0]


def test_a_long_list_comes_in_parts(cursor, snowflake, stage, put):
    """The first 10 000 rows come with the answer, the client fetches the others, and all are there in order."""
    put("@files/many", {"000000": "x"})
    (first,) = snowflake.root.rglob("many/000000")
    names = [f"{number:06d}" for number in range(10_500)]
    for name in names[1:]:
        (first.parent / name).touch()
    batches = cursor.execute("LIST @files/many").get_result_batches()
    read = [row[0].rpartition("/")[2] for row in cursor.fetchall()]

    assert [10_000, 500] == [batch.rowcount for batch in batches]
    assert names == read


def test_the_address_of_a_part_has_a_secret(cursor, snowflake, stage, put):
    """The id of a query alone is not enough to fetch its rows."""
    put("@files", {"secret": "x"})
    query = cursor.execute("LIST @files").sfqid
    with closing(HTTPConnection("127.0.0.1", snowflake.port)) as http:
        http.request("GET", f"/results/{query}/{'0' * 32}-0")
        body = http.getresponse().read()

    assert (True, False) == (b'"success":false' in body, b"files/secret" in body)


def test_list_columns(cursor, stage, put):
    """Size and checksum are the content's; the time is as in an HTTP header, in seconds."""
    content = "é" * 1000
    put("@files", {"x": content})
    ((name, size, md5, modified),) = cursor.execute("LIST @files").fetchall()
    age = datetime.now(UTC) - parsedate_to_datetime(modified)

    assert ("files/x", 2000) == (name, size)
    assert hashlib.md5(content.encode(), usedforsecurity=False).hexdigest() == md5
    assert modified.endswith(" GMT")
    assert age < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        (".*", ["a.csv", "dir/a.csv", "dir/b.txt"]),
        ("dir/.*", ["dir/a.csv", "dir/b.txt"]),
        (".*a[.]csv", ["a.csv", "dir/a.csv"]),
        ("a[.]csv", ["a.csv"]),
        ("csv", []),
        (".*(csv|txt)", ["a.csv", "dir/a.csv", "dir/b.txt"]),
        (".*CSV", []),
    ],
)
def test_patterns_match_whole_paths(cursor, stage, put, tmp_path, pattern, matching):
    """LIST, GET and REMOVE take a regular expression for the whole path below the stage."""
    put("@files", {"a.csv": "1"})
    put("@files/dir", {"a.csv": "22", "b.txt": "333"})
    rows = cursor.execute(f"LIST @files PATTERN = '{pattern}'").fetchall()
    removed = cursor.execute(f"REMOVE @files PATTERN = '{pattern}'").fetchall()

    assert [f"files/{path}" for path in matching] == [row[0] for row in rows]
    assert [(f"files/{path}", "removed") for path in matching] == removed


def test_get_several_files(cursor, stage, put, tmp_path):
    """A single GET copies all files that match, and reports each with its size."""
    put("@files/out", {"r.json": "{}", "x.npy": "123", "y.npy": "12345"})
    rows = cursor.execute(f"GET @files/out/ file://{tmp_path}/ PATTERN = '.*[.]npy'").fetchall()

    assert [("x.npy", 3, "DOWNLOADED"), ("y.npy", 5, "DOWNLOADED")] == [
        (Path(row[0]).name, *row[1:3]) for row in sorted(rows)
    ]
    assert ["x.npy", "y.npy"] == sorted(path.name for path in tmp_path.glob("*.npy"))


def test_implicit_stages(cursor, put):
    """The user stage and a table's stage need no CREATE; the table must exist."""
    cursor.execute("CREATE OR REPLACE TABLE staged (a INT)")
    put("@~/u", {"x": "1"})
    put("@%staged", {"x": "1"})

    assert listed(cursor, "@~/u") == ["u/x"]
    assert listed(cursor, "@%staged") == ["x"]
    assert failure(cursor, "LIST @%nope")[0] == 2003


@pytest.mark.parametrize("path", ["..", "a/../../x", "/../x"])
def test_no_way_out(cursor, stage, path):
    """No path leads out of a stage."""
    assert failure(cursor, f"LIST '@files/{path}'")[0] == 1011


def test_links_are_not_followed(tmp_path):
    """A job may put links into its stage; they are neither listed nor a way out."""
    stages = Stages(tmp_path / "stages")
    stages.create(NAME, Stage(created_on=0.0))
    (stages.path(NAME) / "etc").symlink_to("/etc")
    (stages.path(NAME) / "host").symlink_to("/etc/hostname")

    from airflow_provider_mljobs.emulator.stages.files import files

    assert files(stages.path(NAME)) == []
    with pytest.raises(SnowflakeError):
        stages.mount(parse_stage("@s/etc"), NAME)


@pytest.mark.parametrize("name", ["../../x", "a/b", ".", "..", "é ☃", 'qu"ote', "x.json"])
def test_any_name(tmp_path, name):
    """Every identifier is a name of a stage and stays inside the directory."""
    stages = Stages(tmp_path / "stages")
    full = QualifiedName(name, name, name)
    stages.create(full, Stage(created_on=0.0))

    assert list(Stages(tmp_path / "stages").all()) == [full]
    assert Path(stages.path(full)).resolve().is_relative_to(tmp_path / "stages")


def test_restart(tmp_path):
    """Stages and files survive a restart; temporary stages don't."""
    stages = Stages(tmp_path)
    stages.create(NAME, Stage(created_on=1.0, comment="c"))
    stages.create(QualifiedName("T", "SC", "DB"), Stage(created_on=1.0, temporary=True))
    (stages.mount(parse_stage("@s/d"), NAME) / "f").write_text("x")

    again = Stages(tmp_path)
    assert again.all() == {NAME: Stage(created_on=1.0, comment="c")}
    assert (again.path(NAME) / "d" / "f").read_text() == "x"


def test_temporary_stage_ends_with_its_session(cursor, snowflake):
    """A temporary stage is dropped with its session."""
    from snowflake import connector

    with connector.connect(**snowflake.connection_kwargs) as other:
        other.cursor().execute("CREATE TEMPORARY STAGE fleeting")
        during = cursor.execute("SHOW STAGES LIKE 'fleeting'").fetchall()

    assert len(during) == 1
    assert cursor.execute("SHOW STAGES LIKE 'fleeting'").fetchall() == []


def test_dropping_a_schema_drops_its_stages(cursor, snowflake):
    """The stages of a schema are dropped with it."""
    cursor.execute("CREATE SCHEMA doomed")
    cursor.execute("CREATE STAGE mljobs_db.doomed.s")
    cursor.execute("DROP SCHEMA mljobs_db.doomed")

    assert failure(cursor, "LIST @mljobs_db.doomed.s")[0] == 2003


def test_alter(cursor, stage):
    """ALTER STAGE changes the comment."""
    cursor.execute("ALTER STAGE files SET COMMENT = 'new' DIRECTORY = (ENABLE = TRUE)")
    row = cursor.execute("SHOW STAGES LIKE 'files'").fetchone()

    assert (row[8], row[-1]) == ("new", "Y")
    assert failure(cursor, "ALTER STAGE files SET URL = 'x'")[0] == 2
