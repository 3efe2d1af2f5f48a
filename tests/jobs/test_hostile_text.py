# Any text of a DAG author arrives in the job unchanged, or the task refuses it with the reason.
import json
import tempfile
from pathlib import Path

import yaml
from hypothesis import example, given, strategies as st

from airflow_provider_mljobs.emulator.parsing import tokenize, unescape
from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.gateway.statements import execute_job_service, execute_ml_job
from airflow_provider_mljobs.jobs.comment import TaskKey
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec, Resources, Runtime
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource, ml_job_options, render, specification
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from airflow_provider_mljobs.launcher.arguments import function_arguments, read_arguments
from airflow_provider_mljobs.launcher.contract import ARGUMENTS_FILE

# Each means something to one of those on the way: Jinja, SQL, YAML, JSON, Kubernetes, shells, terminals, Python.
FRAGMENTS = [
    "'",
    "''",
    '"',
    "\\",
    "\\'",
    "\\n",
    "\\u0024",
    "$",
    "$$",
    "$(HOME)",
    "$$(HOME)",
    "${HOME}",
    "$MLRS_STAGE_RESULT_PATH",
    "${SNOWFLAKE_HOST}",
    "{{ ds }}",
    "{% raw %}",
    "{0}%s%(a)s",
    "--",
    "/*",
    "*/",
    "//",
    ";",
    ": ",
    "- ",
    " #",
    "&a",
    "*a",
    "!!python/name:os.system",
    "? ",
    "|",
    ">-",
    "%",
    "`id`",
    "null",
    "0x1f",
    "NaN",
    "1e999",
    "__mljob__",
    '{"__mljob__":"pickle","n":0}',
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\x1b[0m",
    "\x7f",
    "\x85",
    "\xa0",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\uffff",
    "\U0001f680",
    "\ud83d",
    "\ude80",
    "שלום",
    "e\u0301",
]
LONG = 200_000
ANY_CHARACTER = st.characters(exclude_categories=())
SHORT = st.lists(st.sampled_from(FRAGMENTS) | st.text(ANY_CHARACTER, max_size=5), max_size=6).map("".join)
# One in some is long: these cost a hundred times as much.
TEXT = st.tuples(SHORT, st.sampled_from([0] * 30 + [100_001, LONG])).map(
    lambda made: made[0] * (made[1] // len(made[0]) + 1) if made[0] else made[0]
)


def job(**fields):
    """Return a job whose other fields are harmless."""
    database, schema = Identifier("DB"), Identifier("ML")
    return JobSpec(
        name=QualifiedName(database, schema, Identifier("MLJOB_TRAIN_1")),
        compute_pool=Identifier("ML_POOL"),
        stage=StagePath.parse("payloads", "stage_name", Namespace(database, schema)),
        **fields,
    )


def submitted(spec, arguments):
    """Return COMMENT and container environment of a job, as Snowflake reads them from our statement."""
    runtime = Runtime(
        image="/snowflake/images/snowflake_images/snowbooks:1.2", resources=Resources(cpu=3, memory_gib=13)
    )
    if spec.managed:
        options, more = ml_job_options(spec, spec.stage / "payload_1", arguments, None)
        statement = execute_ml_job(str(spec.name), spec.compute_pool, render(options), render(more))
        *_, options, more = (unescape(token.text) for token in tokenize(statement) if token.kind == "string")
        return json.loads(more)["COMMENT"] or "", json.loads(options)["ENV_VARS"]
    text = render(specification(spec, spec.stage / "payload_1", arguments, runtime))
    statement = execute_job_service(spec, SpecificationSource(text=text))
    *comment, text = (unescape(token.text) for token in tokenize(statement) if token.kind == "string")
    (container,) = yaml.load(text, yaml.CSafeLoader)["spec"]["containers"]
    return "".join(comment), container["env"]


def process_environment(variables):
    """Return the environment of a process in the container: Kubernetes expands $(NAME), NUL is an error."""
    assert not [name for name, value in variables.items() if "$" in value]
    assert not [name for name, value in variables.items() if len(f"{name}={value}\0".encode()) > 128 * 1024]
    return variables


def arrived(spec, arguments):
    """Return the arguments that the launcher reads from its environment."""
    _, variables = submitted(spec, arguments)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "input").mkdir()
        if arguments.files:
            (directory / ARGUMENTS_FILE).write_bytes(arguments.archive)
        environ = process_environment(variables) | {"MLRS_STAGE_RESULT_PATH": place}
        document = read_arguments(directory, environ)
        return document if isinstance(document, list) else function_arguments(document, directory)


def is_text_of_a_process(text):
    """Return whether a process accepts a text."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def made_or_refused(make, **fields):
    """Return the result of a call, or its reason for refusing the arguments."""
    try:
        return make(**fields), ""
    except (InvalidJobSpecError, PayloadError) as error:
        return None, str(error)


MANAGED = st.booleans()


@given(text=TEXT, managed=MANAGED)
@example(text="", managed=False)
def test_script_arguments(text, managed):
    """Any text that a process accepts arrives as a script's argument, of any length."""
    packed, reason = made_or_refused(Arguments.of_script, args=["first", text])

    assert is_text_of_a_process(text) is (packed is not None)
    assert not reason or reason.startswith(("args[1] holds a NUL", "args[1] holds half a surrogate pair"))
    assert packed is None or ["first", text] == arrived(job(managed=managed), packed)


@given(text=TEXT, managed=MANAGED)
def test_environment_variables(text, managed):
    """Any text that a process accepts arrives as an environment variable, up to the system's limit."""
    spec, reason = made_or_refused(job, env_vars={"HOSTILE": text}, managed=managed)
    if spec is None:
        assert reason.startswith("env_vars")
        assert not is_text_of_a_process(text) or len(json.dumps(text)) > 99_000
        return
    _, variables = submitted(spec, Arguments.of_script(()))
    environment = process_environment(variables)

    assert text == ({**environment, **json.loads(environment.get("MLJOBS_ENV", "{}"))})["HOSTILE"]


@given(comment=TEXT, query_tag=TEXT, managed=MANAGED)
def test_comments_and_query_tags(comment, query_tag, managed):
    """Text in comments and query tags ends neither its literal nor its clause."""
    spec, reason = made_or_refused(job, comment=comment, query_tag=query_tag, managed=managed)
    if spec is None:
        assert reason.startswith(("comment ", "query_tag "))
        assert not all(is_text_of_a_process(text) and len(text.encode()) <= 100_000 for text in (comment, query_tag))
        return
    sent_comment, variables = submitted(spec, Arguments.of_script(()))

    assert comment == sent_comment
    assert query_tag == json.loads(variables.get("MLJOBS_QUERY_TAG", '""'))


HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | SHORT
    | st.binary(max_size=20)
    | st.dates()
    | st.times(timezones=st.none() | st.timezones())
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.complex_numbers()
    | SHORT.map(Path),
    lambda children: st.lists(children, max_size=3).map(tuple) | st.frozensets(children, max_size=3),
    max_leaves=5,
)
VALUES = st.recursive(
    TEXT | HASHABLE,
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(SHORT, children, max_size=4)
        | st.dictionaries(HASHABLE, children, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.binary(max_size=20).map(bytearray)
    ),
    max_leaves=10,
)


def is_same(one, other):
    """Return whether two values are equal with the same types; NaN equals itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return is_same([*one.items()], [*other.items()])
    if isinstance(one, (set, frozenset)):
        return sorted(map(repr, flat(one))) == sorted(map(repr, flat(other)))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    return repr(one) == repr(other)


def flat(value):
    """Return the items of sets, at any depth, in a fixed order."""
    return [leaf for item in value for leaf in flat(item)] if isinstance(value, (set, frozenset, tuple)) else [value]


def takes(*args, **kwargs):
    """Accept any arguments."""
    return args, kwargs


@given(value=VALUES, name=SHORT, managed=MANAGED)
@example(value={"__mljob__": "pickle", "n": 0}, name="a", managed=False)
@example(value=["\ud83d\ude80", {"\ud83d\ude80": 1}], name="a", managed=False)
def test_function_arguments(value, name, managed):
    """Any value without pickle arrives as a function's argument, unexpanded."""
    call = {"function": takes, "args": [value], "kwargs": {name: value}, "serializer": "source"}
    packed, reason = made_or_refused(Arguments.of_function, **call)
    if packed is None:
        assert not is_text_of_a_process(name)
        assert reason.endswith("has half a surrogate pair in its name. Use a valid name.")
        return
    args, kwargs = arrived(job(managed=managed), packed)

    assert is_same([value], args)
    assert is_same({name: value}, kwargs)


# Airflow keeps its ids as UTF-8, which has no halves of surrogate pairs.
IDS = st.lists(st.sampled_from([text for text in FRAGMENTS if text.isprintable()]) | st.text()).map("".join)


@given(dag_id=IDS, run_id=IDS, task_id=IDS, map_index=st.integers(-1, 10**6), attempt=st.integers(1, 999))
def test_job_names(dag_id, run_id, task_id, map_index, attempt):
    """Any names of DAG, run and task make a job name that needs no quotes and is a valid host name."""
    task = TaskKey(airflow="", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)
    name = task.job_name(0, attempt)

    assert name.is_bare
    assert 63 >= len(str(name))
    assert [name.value] == [token.text for token in tokenize(str(name))]


TEXTS = [text for text in FRAGMENTS if is_text_of_a_process(text)]
TEXTS += ["".join(TEXTS), "".join(reversed(TEXTS)), "ä" * LONG]


def test_a_real_script_finds_them(run, script):
    """A script in another process finds hostile text in its arguments and environment."""
    variables = {f"V{number}": text for number, text in enumerate(TEXTS[:-1])}
    job = script(
        "import os, sys\n"
        f"__return__ = [sys.argv[1:], [os.environ[f'V{{number}}'] for number in range({len(variables)})]]"
    )
    # The documented variables are expanded in a script's arguments.
    texts = [text for text in TEXTS if "MLRS" not in text and "SNOWFLAKE" not in text]
    ended = run(Payload.of_source(job, None), Arguments.of_script(texts), env_vars=variables)

    assert 0 == ended.code, ended.errors
    assert [texts, [*variables.values()]] == ended.record["value"]


def returns_what_it_got(*args, **kwargs):
    """Print the arguments."""
    return [ascii(args), ascii(kwargs)]


def test_a_real_function_finds_them(run):
    """A function in another process finds hostile text in arguments, keys and other values."""
    args = [*FRAGMENTS, tuple(FRAGMENTS), {text: text for text in FRAGMENTS}, "\ud83d\ude80", b"\0" * LONG]
    kwargs = {text: (text,) for text in TEXTS[:-1]}
    packed = Arguments.of_function(returns_what_it_got, args, kwargs)
    ended = run(Payload.of_function(returns_what_it_got), packed)

    assert 0 == ended.code, ended.errors
    assert [ascii(tuple(args)), ascii(kwargs)] == ended.record["value"]
