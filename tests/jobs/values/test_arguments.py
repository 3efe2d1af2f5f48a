# Arguments of functions and scripts, and the form in which they travel.
import collections
import enum
import importlib
import io
import json
import math
import struct
import sys
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.values.arguments import Arguments, script_arguments
from airflow_provider_mljobs.jobs.values.codec import Encoder, TooLargeError
from airflow_provider_mljobs.jobs.values.references import StageRef
from airflow_provider_mljobs.launcher.arguments import check_versions, function_arguments, read_arguments
from airflow_provider_mljobs.launcher.contract import ARGUMENTS_FILE
from airflow_provider_mljobs.launcher.errors import LauncherError

BERLIN = ZoneInfo("Europe/Berlin")


class Color(enum.Enum):
    """An enumeration of the DAG file."""

    RED = "red"
    GREEN = "green"


class Access(enum.Flag):
    """Flags, which can be combined."""

    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Point:
    """A dataclass of the DAG file that needs its imports only."""

    x: int
    y: float = 0.5
    origin: ClassVar[str] = "here"

    @property
    def length(self):
        """Use a module of the file."""
        return math.hypot(self.x, self.y)


@dataclass
class Line:
    """A dataclass with dataclasses in its fields, and an attribute that isn't a field."""

    points: list["Point"]
    color: Color | None = None
    name: str = field(init=False)

    def __post_init__(self):
        self.name = f"{len(self.points)} points"


@dataclass
class Painted:
    """A dataclass that needs more of the DAG file than its own source."""

    color: Color = Color.RED


@dataclass
class Plain:
    """A dataclass whose annotations don't describe its values."""

    a: Any
    b: Any = None


class Pair(NamedTuple):
    """A named tuple of the DAG file."""

    first: Any
    second: Any


class Opaque:
    """A class whose instances only a pickle can hold."""

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"Opaque({self.inner!r})"


@dataclass
class Guarded:
    """A dataclass that customises its pickle."""

    n: int

    def __reduce__(self):
        return Guarded, (self.n + 1,)


def what_it_got(*args, **kwargs):
    """Print the arguments."""
    return repr((args, kwargs))


def what_it_is(value):
    """Print the type and the repr of a value."""
    return [type(value).__name__, repr(value)]


def knows_points(value):
    """Use names of the DAG file, which need a pickle."""
    return [isinstance(value[0], Point), value[0] == value[1].inner, FACTOR]


FACTOR = 2


def takes(table, *more, depth=1, **rest):
    """Take arguments of all kinds."""
    return table, more, depth, rest


@pytest.fixture
def roundtrip(tmp_path):
    """Send a value as an argument, and read it as the launcher does."""

    def roundtrip(value, **options):
        packed = Arguments.of_function(takes, [value], **options)
        args, kwargs = function_arguments(read(packed, tmp_path), tmp_path)

        assert {} == kwargs
        return args[0]

    return roundtrip


def read(packed, directory):
    """Read arguments as the launcher does."""
    environ = {"MLRS_STAGE_RESULT_PATH": str(directory)}
    if packed.inline is not None:
        environ["MLJOBS_ARGS"] = packed.inline
    if packed.files:
        (directory / ARGUMENTS_FILE).parent.mkdir(exist_ok=True)
        (directory / ARGUMENTS_FILE).write_bytes(packed.archive)
    return read_arguments(directory, environ)


PLAIN = [
    None,
    True,
    0,
    -(10**30),
    1.5,
    -0.0,
    "",
    "x\0$(X) {{ y }}",
    [],
    [1, [2, None]],
    {},
    {"a": {"b": [1.5]}},
]
TAGGED = [
    math.inf,
    -math.inf,
    math.nan,
    "\ud83d\ude00",
    "a\ud800\ud800\udc00\udc00b",
    {"\ud83d\ude00": 1},
    1j,
    complex(math.nan, -0.0),
    b"",
    b"\x00\xff",
    bytearray(b"ab"),
    (),
    (1, (2, [3])),
    {3, 1, 2},
    frozenset({"a", None}),
    {1: "a", (2, 3): "b", None: {4}},
    {"__mljob__": "tuple", "items": []},
    [{"__mljob__": {"__mljob__": 1}}],
    date(2026, 11, 21),
    datetime(1, 1, 1),
    datetime(2026, 11, 21, 10, 30, 5, 123456, tzinfo=UTC),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, seconds=1))),
    time(23, 59, 59, 999999),
    time(1, 2, tzinfo=timezone(timedelta(minutes=90), "odd")),
    timedelta(-1, 5, 7),
    UTC,
    BERLIN,
    Decimal("1.10"),
    Decimal("-Infinity"),
    Decimal("sNaN12"),
    UUID(int=7),
    Path("a/b"),
    PurePosixPath("/ü"),
    PureWindowsPath("c:\\x"),
    Color.RED,
    Access.READ,
    Access.READ | Access.WRITE,
    Access(0),
    Point(3, 4),
    Line([Point(1), Point(2)]),
    Plain({"x": Plain((1,))}, b=Color.GREEN),
    Pair(1, (2,)),
]


# A set is printed in another order in each process.
@pytest.mark.parametrize(
    "value", [*PLAIN, *TAGGED], ids=lambda value: "frozenset" if isinstance(value, frozenset) else ascii(value)[:60]
)
def test_values_arrive_without_pickle_as_what_they_were(roundtrip, value):
    """Values travel without pickle with their types, at any depth."""
    ((arrived,),) = (item["key"] for item in roundtrip([{"key": (value,)}], serializer="source"))

    assert type(value) is type(arrived)
    # NaN is not equal to itself.
    assert repr(value) == repr(arrived)


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: ascii(value)[:60])
def test_what_is_json_travels_as_it_is(value):
    """JSON is written to the specification unchanged, so that people can read it."""
    packed = Arguments.of_function(takes, [value], {"depth": value})

    assert {"args": [value], "kwargs": {"depth": value}} == json.loads(packed.inline)
    assert {} == packed.files


def test_other_values_say_what_they_are():
    """Other values are readable in the specification, with tags for their types."""
    packed = Arguments.of_function(takes, [date(2026, 1, 2)], {"depth": (1, Decimal("0.1"))})

    assert {
        "args": [{"__mljob__": "date", "value": "2026-01-02"}],
        "kwargs": {"depth": {"__mljob__": "tuple", "items": [1, {"__mljob__": "Decimal", "value": "0.1"}]}},
        "names": ["table"],
    } == json.loads(packed.inline)


def test_numbers_may_be_longer_than_python_writes(roundtrip):
    """Integers of more than 4300 digits arrive, although Python refuses to write them as decimals."""
    assert -(10**5000) == roundtrip(-(10**5000))


def test_zones_keep_their_rules(roundtrip):
    """A time keeps its named zone, whose offset may differ a day later."""
    arrived = roundtrip(datetime(2026, 10, 24, 12, tzinfo=BERLIN))

    assert "2026-10-25T12:00:00+01:00" == (arrived + timedelta(days=1)).isoformat()


def test_a_job_has_all_arguments(run):
    """A job without the DAG file gets positional, keyword and variable arguments."""
    args, kwargs = [Point(1), *PLAIN], {"key": Line([Point(2)]), "other": [Color.RED, Pair(1, 2), Access(3)]}
    ended = run(Payload.of_function(what_it_got), Arguments.of_function(what_it_got, args, kwargs))

    assert 0 == ended.code, ended.errors
    assert repr((tuple(args), kwargs)) == ended.record["value"]


def uses_a_class(point):
    """Use methods and variables of a class."""
    return [point.length, type(point).origin, type(point)(1) == type(point)(1)]


def test_classes_of_the_dag_file_travel_with_their_source(run):
    """A class of the DAG file arrives with its methods, class variables and imports."""
    packed = Arguments.of_function(uses_a_class, [Point(3, 4)], serializer="source")
    (entry,) = json.loads(packed.inline)["classes"]
    ended = run(Payload.of_function(uses_a_class), packed)

    assert ("Point", "test_arguments.py") == (entry["name"], entry["file"])
    assert {} == packed.files
    assert [5.0, "here", True] == ended.record["value"]


def test_a_function_that_knows_the_class_gets_its_own(run):
    """A pickled function and its arguments have the same class in the job."""
    value = [Point(1), Opaque(Point(1))]
    ended = run(Payload.of_function(knows_points), Arguments.of_function(knows_points, [value]))

    assert [True, True, 2] == ended.record["value"]


def compares(points):
    """Compare a pickled value with one that isn't."""
    return points[0] == points[1].inner


def test_what_is_pickled_and_what_is_not_have_one_class(run):
    """If one value of a call is pickled, so are all instances of classes of the DAG file."""
    value = [Point(1), Opaque(Point(1))]
    ended = run(Payload.of_function(compares), Arguments.of_function(compares, [value]))

    assert ended.record["value"] is True


def is_one(a, b):
    """Return whether two arguments are one object."""
    return a is b


def test_what_is_pickled_stays_shared(run):
    """A pickled object that is passed twice is one object in the job."""
    value = Opaque(1)

    assert run(Payload.of_function(is_one), Arguments.of_function(is_one, [value, value])).record["value"] is True


@pytest.mark.parametrize(
    "value",
    [
        Opaque([1]),
        Guarded(1),
        collections.OrderedDict(a=1),
        collections.namedtuple("Made", "a")(1),  # noqa: PYI024 (occurs)
        SimpleNamespace(a=1),
        range(3),
        {1, Pair(Opaque(1).inner, 2)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_other_value_is_pickled(run, value):
    """Only the value that needs a pickle is pickled; the values around it are JSON."""
    packed = Arguments.of_function(what_it_is, [value])
    ended = run(Payload.of_function(what_it_is), packed)
    expected = Guarded(2) if isinstance(value, Guarded) else value

    assert [type(value).__name__, repr(expected)] == ended.record["value"]


def test_classes_that_do_not_stand_alone_are_pickled():
    """Instances of a class that needs more than its source are pickled."""
    packed = Arguments.of_function(what_it_is, [[Painted(), Plain(1)]])

    assert ["arguments", "by"] == sorted(json.loads(packed.inline)["pickled"])


class Text(str):
    """A subclass of str."""

    __slots__ = ()


def local_class():
    """Return an instance of a class that is local to this function."""

    @dataclass
    class Inner:
        n: int

    return Inner(1)


# A file with one zone without a name.
TZIF = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
REFUSED = [
    (datetime(2026, 1, 1, tzinfo=ZoneInfo.from_file(io.BytesIO(TZIF))), "of type ZoneInfo"),
    (Opaque(1), "of type Opaque"),
    (Text("a"), "of type Text"),
    (local_class(), "of type Inner: its class is not defined at the top level of a module"),
    (
        Painted(),
        (
            "of type Painted: its class uses 'Color' of its module, which isn't imported from an installed one: pass "
            "it as an argument, or import or define it inside"
        ),
    ),
    (MappingProxyType({}), "of type mappingproxy"),
]


@pytest.mark.parametrize(("value", "said"), REFUSED, ids=lambda value: type(value).__name__)
def test_no_pickle_means_none(value, said):
    """The message for serializer="source" names argument, type, reason and alternatives."""
    with pytest.raises(PayloadError) as caught:
        Arguments.of_function(takes, [[1, {"a": value}]], serializer="source")

    assert (
        f"Argument 'table' of 'takes' holds a value {said}. serializer='source' allows no pickle: pass JSON, dates, "
        "paths, dataclasses, DataFrames or arrays, or leave serializer at 'auto'."
    ) == str(caught.value)


def test_cloudpickle_pickles_all_that_is_no_json():
    """serializer="cloudpickle" pickles each argument that is no JSON as a whole."""
    packed = Arguments.of_function(takes, [1, date(2026, 1, 1), "a"], {"depth": [(1,)]}, serializer="cloudpickle")
    document = json.loads(packed.inline)

    assert [1, {"__mljob__": "pickle", "n": 0}, "a"] == document["args"]
    assert {"depth": {"__mljob__": "pickle", "n": 1}} == document["kwargs"]
    assert ["args[1]", "depth"] == document["pickled"]["arguments"]


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ([threading.Lock()], {}, "table"),
        (["t", 1, threading.Lock()], {}, "args[2]"),
        (["t"], {"depth": threading.Lock()}, "depth"),
        ([(1,)], {"other": threading.Lock()}, "other"),
        ([[Opaque(1), {"a": threading.Lock()}]], {}, "table"),
    ],
)
def test_arguments_that_can_not_travel_are_named(args, kwargs, named):
    """The message for an argument that can't be pickled names it, its type and the alternatives."""
    with pytest.raises(PayloadError) as caught:
        Arguments.of_function(takes, args, kwargs)

    assert (
        f"Argument {named!r} of 'takes', of type lock, can't be pickled for the job: cannot pickle '_thread.lock' "
        "object. Pass the data to rebuild it: a table name, a stage path, numbers and text."
    ) == str(caught.value)


def test_what_holds_itself_is_refused():
    """A value that contains itself is refused."""
    endless = []
    endless.append(endless)
    with pytest.raises(PayloadError, match="'depth' of 'takes' is nested too deeply, or contains itself"):
        Arguments.of_function(takes, [1], {"depth": endless})


def test_names_that_are_no_text_are_refused():
    """A keyword argument whose name is no valid text is refused."""
    with pytest.raises(PayloadError, match="has half a surrogate pair in its name"):
        Arguments.of_function(takes, [1], {"\ud83d": 1})


def test_unknown_serializers_are_refused():
    """An unknown serializer is refused for arguments as for functions."""
    with pytest.raises(InvalidJobSpecError, match="serializer must be one of 'auto', 'source', 'cloudpickle'; got 's'"):
        Arguments.of_function(takes, [1], serializer="s")


def test_files_are_bounded():
    """Arguments that exceed the limit of the worker's memory are refused."""
    encoder = Encoder(may_pickle=True, may_define=True, limit=100_000)
    encoder.encode([b"x" * 50_000])

    with pytest.raises(TooLargeError):
        encoder.encode(b"y" * 50_001)


def test_too_large_arguments_are_named():
    """The limit of 1 GiB holds for all arguments together, and is checked before their files are complete."""
    np = pytest.importorskip("numpy", reason="numpy isn't installed")
    # Takes no memory: all of its rows are one.
    array = np.broadcast_to(np.zeros(2**17), (2**11, 2**17))
    with pytest.raises(PayloadError) as caught:
        Arguments.of_function(takes, ["a"], {"depth": array})

    assert (
        "Argument 'depth' of 'takes' takes the arguments over the limit of 1 GiB. Write the data to a table or a "
        "stage, and pass its name."
    ) == str(caught.value)


def test_what_is_too_long_for_the_specification_is_a_file(roundtrip):
    """Arguments that are too long for the specification, one statement, travel as a file."""
    text = "$ä" * 100_000
    packed = Arguments.of_function(takes, [text])

    assert (None, ["arguments.json"]) == (packed.inline, [*packed.files])
    assert text == roundtrip(text)


def test_long_bytes_are_a_file(roundtrip):
    """Long bytes travel as a file, because base64 would make them longer."""
    value = [b"x" * 20_000, bytearray(b"y" * 20_000)]

    assert value == roundtrip(value)
    assert ["0.bin", "1.bin"] == [*Arguments.of_function(takes, [value]).files]


def test_references_are_numbered_once_each(tmp_path):
    """A reference has the number of the directory to which Snowflake copies its files."""
    first = StageRef(stage_paths=("@d.s.st/a.parquet",), protocol="pandas")
    second = StageRef(stage_paths=("@d.s.st/output/b.npy",), protocol="numpy")
    packed = Arguments.of_function(takes, [[first, {"x": second.to_xcom()}]], {"depth": (first,)})
    document = json.loads(packed.inline)

    assert (first, second) == packed.references
    assert [0, 1] == [document["args"][0][0]["n"], document["args"][0][1]["x"]["n"]]
    assert 0 == document["kwargs"]["depth"]["items"][0]["n"]


def written_elsewhere(packed, **versions):
    """Change the versions that pickled the arguments."""
    document = json.loads(packed.inline)
    document["pickled"]["by"] |= versions
    return replace(packed, inline=json.dumps(document))


def test_pickles_of_another_python_are_refused_before_anything_else(tmp_path):
    """The message for a pickle of another Python names arguments, versions and fixes; nothing is unpickled."""
    packed = written_elsewhere(Arguments.of_function(takes, [Opaque(1), 2, Opaque(3)]), python="3.9")
    running = "{}.{}".format(*sys.version_info)
    with pytest.raises(LauncherError) as caught:
        read(packed, tmp_path)

    assert (
        f"The value of 'table', 'args[2]' was pickled by Python 3.9, this container runs Python {running}. Pass "
        "JSON, dates, paths, dataclasses, DataFrames or arrays, which need no pickle, or choose a runtime_environment "
        "with Python 3.9."
    ) == str(caught.value)


def test_functions_of_another_python_are_refused():
    """A function pickled by another Python is refused."""
    with pytest.raises(LauncherError) as caught:
        check_versions({"pickled_by": {"python": "3.9", "cloudpickle": "3.1.2"}})

    assert str(caught.value).startswith("The payload was pickled by Python 3.9, this container runs Python 3.")
    assert "so that it travels as source, or choose a runtime_environment with Python 3.9." in str(caught.value)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("__version__ = '2.2.1'", "The payload was pickled by cloudpickle {0}, this container has 2.2.1: add"),
        ("raise ImportError", "The payload was pickled, but this container has no cloudpickle: add"),
    ],
    ids=["older", "missing"],
)
@pytest.mark.parametrize("what", ["function", "argument"])
def test_an_unfit_cloudpickle_is_seen_before_it_reads(run, tmp_path, module, said, what):
    """The message for a missing or old cloudpickle has the requirement to add, for functions and arguments."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cloudpickle.py").write_text(module)
    function, value = (knows_points, 1) if what == "function" else (what_it_is, Opaque(1))
    packed = Arguments.of_function(function, [value])
    ended = run(Payload.of_function(function), packed, PYTHONPATH=str(tmp_path / "other"))
    here = importlib.import_module("cloudpickle").__version__

    assert 1 == ended.code
    assert f"{said.format(here)} 'cloudpickle=={here}' to pip_requirements." == ended.record["metadata"]["message"]


@pytest.fixture
def only_here(tmp_path, monkeypatch):
    """Install a package that the job doesn't have."""
    place = tmp_path / "site-packages" / "only_here"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text(
        "import dataclasses, enum\n\nclass Level(enum.Enum):\n    LOW = 1\n\n"
        "class Model:\n    pass\n\ndef helper():\n    return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.delitem(sys.modules, "only_here", raising=False)
    module = importlib.import_module("only_here")
    monkeypatch.setitem(sys.modules, "only_here", module)
    return module


def test_packages_of_arguments_that_the_job_lacks_are_named(run, only_here):
    """The message for a class of a missing package names the argument and the package."""
    packed = Arguments.of_function(what_it_is, [only_here.Level.LOW], serializer="source")
    ended = run(Payload.of_function(what_it_is), packed)

    assert (
        "Argument 'value' holds a only_here.Level, which this container doesn't have (No module named 'only_here'): "
        "add its package to pip_requirements, or pass plain values."
    ) == ended.record["metadata"]["message"]


def test_packages_of_pickles_that_the_job_lacks_are_named(run, only_here):
    """The message for a pickle of a missing package names the argument, which pickle's own does not."""
    packed = Arguments.of_function(what_it_is, [only_here.Model()])
    ended = run(Payload.of_function(what_it_is), packed)

    assert (
        "Argument 'value' was pickled and can't be loaded in this container: No module named 'only_here'. Add its "
        "package to pip_requirements, in the version of the Airflow worker."
    ) == ended.record["metadata"]["message"]


def test_what_a_class_imports_is_named_where_the_job_lacks_it(run, only_here, monkeypatch):
    """The message for a class whose imports are missing names the package."""
    monkeypatch.syspath_prepend(Path(only_here.__file__).parents[2])
    (Path(only_here.__file__).parents[2] / "models_of_a_dag.py").write_text(
        "from dataclasses import dataclass\nfrom only_here import helper\n\n"
        "@dataclass\nclass Row:\n    n: int = helper()\n"
    )
    monkeypatch.delitem(sys.modules, "models_of_a_dag", raising=False)
    module = importlib.import_module("models_of_a_dag")
    monkeypatch.setitem(sys.modules, "models_of_a_dag", module)
    ended = run(Payload.of_function(what_it_is), Arguments.of_function(what_it_is, [module.Row()]))

    assert (
        "Argument 'value' holds a Row, whose class can't be imported in this container: No module named "
        "'only_here'. Add the package to pip_requirements."
    ) == ended.record["metadata"]["message"]


def test_unknown_time_zones_are_named(run):
    """The message for a missing time zone, as in a slim image, advises tzdata."""
    packed = Arguments.of_function(what_it_is, [datetime(2026, 1, 1, tzinfo=BERLIN)])
    packed = replace(packed, inline=packed.inline.replace("Europe/Berlin", "Europe/Atlantis"))
    ended = run(Payload.of_function(what_it_is), packed)

    assert (
        "Argument 'value' has the time zone 'Europe/Atlantis', which this container doesn't have: add 'tzdata' to "
        "pip_requirements, or pass a UTC time."
    ) == ended.record["metadata"]["message"]


def test_missing_arguments_are_missed(tmp_path):
    """The message for a missing file of arguments has its path."""
    with pytest.raises(LauncherError, match=r"missing: neither its environment nor .*/input/arguments\.zip has them"):
        read_arguments(tmp_path, {"MLRS_STAGE_RESULT_PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("args", "expected"), [(["a b", 1, 0.5, Path("x/y")], ["a b", "1", "0.5", "x/y"]), (("$X", ""), ["$X", ""])]
)
def test_scripts_get_text(args, expected):
    """A script gets its arguments as text of str()."""
    assert expected == json.loads(Arguments.of_script(args).inline)


@pytest.mark.parametrize("size", [1_000, 200_000])
def test_scripts_get_text_of_any_length(tmp_path, size):
    """A script, which runs in the launcher's process, gets text of any length."""
    assert ["ä" * size] == read(Arguments.of_script(["ä" * size]), tmp_path)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a", None], "args[1] is of type NoneType; a script takes text and numbers. Write it as text."),
        (["a\0"], "args[0] holds a NUL character, which no process accepts. Remove it."),
        (["\ud800"], "args[0] holds half a surrogate pair, which is no valid text. Remove it."),
        ("--x", "args must be a list of arguments, got '--x'."),
        ({"a": 1}, "args must be a list of arguments, got {'a': 1}."),
    ],
    ids=["none", "nul", "surrogate", "text", "dict"],
)
def test_what_is_no_argument_is_refused(args, message):
    """The message for an invalid argument names it and the fix."""
    with pytest.raises(InvalidJobSpecError) as caught:
        script_arguments(args)

    assert message == str(caught.value)


def test_programs_take_less_than_scripts():
    """An argument of more than 100 KB for a process is refused, because the system takes 128 KB."""
    with pytest.raises(InvalidJobSpecError, match=r"args\[0\] has 100001 bytes, more than the limit of 100000"):
        Arguments.of_script(["x" * 100_001], to_process=True)


def test_references_become_their_values(roundtrip, tmp_path, monkeypatch):
    """The launcher loads the files of references that Snowflake copied."""
    monkeypatch.setenv("MLRS_STAGE_RESULT_PATH", str(tmp_path))
    copied = tmp_path / "input" / "references" / "0" / "model.bin"
    copied.parent.mkdir(parents=True)
    copied.write_bytes(b"weights")
    (arrived,) = roundtrip([StageRef(stage_paths=("@d.s.st/model.bin",))])

    assert copied == arrived


WHOLE_PROGRAM = """
import hashlib
import test_arguments as these
from airflow_provider_mljobs.jobs.values.arguments import Arguments
packed = Arguments.of_function(these.takes, [[*these.TAGGED, b"x" * 20_000]])
print(packed.inline, hashlib.sha256(packed.archive).hexdigest())
"""


def test_the_same_arguments_are_the_same_bytes_in_any_process(in_any_process):
    """Arguments have the same bytes in any process, independent of the order of sets."""
    written = in_any_process(WHOLE_PROGRAM)

    assert 1 == len(written)
    assert "pickled" not in written.pop()
