import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath, job_name, literal

DB, ML = Identifier("DB"), Identifier("ML")
TASK = {
    "airflow": "prod",
    "dag_id": "retrain",
    "run_id": "manual__1",
    "task_id": "train",
    "map_index": -1,
    "attempt": "0_1",
}


@pytest.mark.parametrize(
    ("written", "stored", "in_sql"),
    [
        ("ml_pool", "ML_POOL", "ML_POOL"),
        (" ml_pool ", "ML_POOL", "ML_POOL"),
        ("_a$1", "_A$1", "_A$1"),
        ('"ML_POOL"', "ML_POOL", "ML_POOL"),
        ('"ml_pool"', "ml_pool", '"ml_pool"'),
        ('"my ""best"" pool"', 'my "best" pool', '"my ""best"" pool"'),
        ('"1st"', "1st", '"1st"'),
        ('"a.b; --"', "a.b; --", '"a.b; --"'),
        ('"größe 🚀"', "größe 🚀", '"größe 🚀"'),
    ],
)
def test_names_are_read_as_snowflake_reads_them(written, stored, in_sql):
    """Bare names are stored in upper case and quoted names as written; SQL has quotes only where necessary."""
    identifier = Identifier.parse(written, "compute_pool")

    assert stored == identifier.value
    assert in_sql == str(identifier)


@pytest.mark.parametrize(
    "text",
    ["", " ", "1st", "a b", "a.b", "a;b", "a'b", 'a"b', '""', '"a', 'a"', '"a"b', "a.", ".a", "ä", "a\0", "A" * 256],
)
def test_what_is_no_name_is_refused(text):
    """Text that isn't exactly one name never gets into SQL."""
    with pytest.raises(InvalidJobSpecError):
        Identifier.parse(text, "compute_pool")


def test_refused_names_are_shown_with_the_parameter():
    """The error has the parameter, and the syntax of names."""
    with pytest.raises(InvalidJobSpecError) as caught:
        Identifier.parse("my pool", "compute_pool")

    assert (
        'compute_pool \'my pool\' is not a name. Write letters, digits, "_" and "$", or put the name in double quotes.'
    ) == str(caught.value)


def test_every_name_survives_writing_and_reading():
    """A name written into SQL reads back as the same name."""
    names = [Identifier(value) for value in ('"', '""', "a b", "A", "a", "'", "\\", "\n", "$$", "🚀", "A" * 255)]

    assert names == [Identifier.parse(str(name), "name") for name in names]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("job", "DB.ML.JOB"), ("s.job", "DB.S.JOB"), ("d.s.job", "D.S.JOB"), ('"d.x". s ."j"', '"d.x".S."j"')],
)
def test_names_are_qualified(text, expected):
    """Missing parts of a name come from the namespace."""
    assert expected == str(QualifiedName.parse(text, "job", Namespace(DB, ML)))


@pytest.mark.parametrize(
    ("text", "database", "schema", "missing"),
    [
        ("job", None, None, "no database and schema"),
        ("job", DB, None, "no schema"),
        ("s.job", None, ML, "no database"),
        ("a.b.c.d", DB, ML, "at most 3 parts"),
    ],
)
def test_names_that_can_not_be_qualified_are_refused(text, database, schema, missing):
    """A name without a complete namespace is refused, so nothing depends on a session's current schema."""
    with pytest.raises(InvalidJobSpecError) as caught:
        QualifiedName.parse(text, "job", Namespace(database, schema))

    assert missing in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("payloads", "@DB.ML.PAYLOADS"),
        ("@payloads", "@DB.ML.PAYLOADS"),
        (" @s.payloads/ ", "@DB.S.PAYLOADS"),
        ("@d.s.payloads/A/b c/", "@D.S.PAYLOADS/A/b c"),
        ('@"my stage"/a', '@DB.ML."my stage"/a'),
    ],
)
def test_stage_paths_are_read_with_or_without_at_sign(text, expected):
    """The stage is a name; the path keeps its case."""
    assert expected == str(StagePath.parse(text, "stage_name", Namespace(DB, ML)))


@pytest.mark.parametrize("path", ["a'b", "a\\b", "a\nb", "a\0b", "..", "a/../../b", "a/.."])
def test_paths_that_leave_the_stage_or_the_literal_are_refused(path):
    """A path can't end its SQL literal or leave its stage."""
    with pytest.raises(InvalidJobSpecError) as caught:
        StagePath.parse(f"@payloads/{path}", "stage_name", Namespace(DB, ML))

    assert "can't be a path on a stage" in str(caught.value)


def test_stage_paths_are_joined_like_paths():
    """A slash appends to a path, and can't leave it."""
    stage = StagePath.parse("@payloads", "stage_name", Namespace(DB, ML))

    assert "@DB.ML.PAYLOADS/job/output" == str(stage / "job" / "output")
    with pytest.raises(InvalidJobSpecError):
        stage / ".."


@pytest.mark.parametrize(
    ("path", "name", "parent"),
    [
        ("payloads/p_1/JOB", "JOB", "@DB.ML.S/payloads/p_1"),
        ("model.bin", "model.bin", "@DB.ML.S"),
        ("p_1/", "", "@DB.ML.S/p_1"),
        ("", "", "@DB.ML.S"),
    ],
    ids=["path", "one part", "with a slash", "stage"],
)
def test_the_parts_of_stage_paths(path, name, parent):
    """Name and parent work as for local paths."""
    place = StagePath(QualifiedName(DB, ML, Identifier("S")), path)

    assert (name, parent) == (place.name, str(place.parent))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "''"),
        ("it's", "'it''s'"),
        ("\\", "'\\\\'"),
        ("\\'; DROP", "'\\\\''; DROP'"),
        ("a\nb\r\tc\0", "'a\\nb\\r\\tc\\0'"),
        ('"$$" 🚀', "'\"$$\" 🚀'"),
    ],
)
def test_literals_mean_exactly_the_text(value, expected):
    """Quotes are doubled; backslashes and control characters are escaped."""
    assert expected == literal(value)


def test_job_names_are_for_people_and_for_finding_again():
    """A job's name has its task's name, and a task instance always gets the same one."""
    name = job_name(**TASK)

    assert "MLJOB_TRAIN_65CF9AF4D3DB_0_1" == str(name)
    assert name == job_name(**TASK)


@pytest.mark.parametrize("field", ["airflow", "dag_id", "run_id", "task_id", "attempt"])
def test_each_task_instance_has_its_own_job_name(field):
    """Airflow, DAG, run, task, map index and attempt all change a job's name."""
    assert job_name(**TASK) != job_name(**TASK | {field: "1_9"})
    assert job_name(**TASK) != job_name(**TASK | {"map_index": 0})


@pytest.mark.parametrize("task_id", ["group.train-model", "größe", "🚀", "a" * 250, "_" * 60, "x" * 41 + ".y"])
def test_any_task_id_makes_a_bare_name_that_fits_a_host_name(task_id):
    """Job names need no quotes and have at most 63 characters."""
    name = job_name(**TASK | {"task_id": task_id, "attempt": "10_11"})

    assert name.is_bare
    assert len(name.value) <= 63
    # The jobs of a task instance are listed by this beginning.
    first = job_name(**TASK | {"task_id": task_id, "attempt": "0_1"})
    assert first.value.removesuffix("0_1") == name.value.removesuffix("10_11")
    assert "__" not in name.value
