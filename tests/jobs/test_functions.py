# Functions of the shapes that people write. How each is packed is one question, what it does in a job another.
import asyncio
import concurrent.futures
import functools
import importlib
import math
import os.path
import sys
import threading
from collections import OrderedDict as Ordered
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import pytest

from airflow_provider_mljobs.exceptions import PayloadError
from airflow_provider_mljobs.jobs import functions
from airflow_provider_mljobs.jobs.payload import Payload

FACTOR = 3


@dataclass
class Point:
    """Something of the DAG file that a job gets, or makes."""

    x: int
    y: int


def shout(function):
    """Add an effect, and say which function is below."""

    @functools.wraps(function)
    def shouted(*args):
        return function(*args).upper() + "!"

    return shouted


def register(function):
    """Add no effect, as Airflow's own decorators, whose job it is that the function runs as a task."""
    return function


def commented(n):
    """Has a docstring."""
    # A comment with a # in it
    text = """#1
  not a comment: "#"
# at the margin"""
    return f"{text}#{n}"  # and a comment


def imports_inside():
    import json

    return json.dumps({"pi": 3})


def uses_modules(n):
    return [math.floor(n), sqrt(4), os.path.basename("a/b"), Ordered(a=1)["a"]]


def uses_a_module_of_a_package():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(int, "7").result()


def has_defaults(a, b=2, *, c=(1, -2), d=None, **rest):
    return [a, b, list(c), d, rest]


def has_annotations(n: Point | None = None) -> list[Point]:
    m: Point = n
    return m


def defines_a_class():
    @dataclass
    class Local:
        n: int = 5

    return Local().n


def defines_functions(n):
    def double(x):
        return 2 * x

    return [double(x) for x in range(n)] + list(map(lambda x: x + n, [1]))  # noqa: C417 (lambdas occur)


def recurses(n):
    return 1 if n == 0 else n * recurses(n - 1)


def separators():
    # Python takes none of these for the end of a line.
    return len("a bc")  # noqa: RUF001


async def waits(n):
    await asyncio.sleep(0)
    return n


@register
def registered(n):
    return n


if FACTOR:

    @register
    def indented(n):
        text = """
at the margin"""
        return f"{n}{text}"


@shout
def shouted(name):
    return f"hello {name}"


def uses_a_constant(n):
    return n * FACTOR


def uses_a_neighbour(n):
    return recurses(n)


def makes_a_point():
    return Point(1, 2).y


def has_a_computed_default(n=FACTOR + 1):
    return n


def closes_over(n):
    def closed(m):
        return n + m

    return closed


def nested():
    def inner(n):
        # indented twice
        return f"""
{n}"""

    return inner


class Model:
    """An object with a method that can be a payload."""

    bias = 10

    def predict(self, n):
        return self.bias + n


AS_SOURCE = [
    (commented, [1], '#1\n  not a comment: "#"\n# at the margin#1'),
    (imports_inside, [], '{"pi": 3}'),
    (uses_modules, [2.5], [2, 2.0, "b", 1]),
    (uses_a_module_of_a_package, [], 7),
    (has_defaults, [1], [1, 2, [1, -2], None, {}]),
    (has_annotations, [4], 4),
    (defines_a_class, [], 5),
    (defines_functions, [2], [0, 2, 3]),
    (recurses, [5], 120),
    (separators, [], 5),
    (waits, [6], 6),
    (registered, [7], 7),
    (indented, [8], "8\nat the margin"),
    (nested(), [9], "\n9"),
]
AS_PICKLE = [
    (shouted, ["you"], "HELLO YOU!"),
    (uses_a_constant, [2], 6),
    (uses_a_neighbour, [3], 6),
    (makes_a_point, [], 2),
    (has_a_computed_default, [], 4),
    (closes_over(1), [2], 3),
    (lambda n: n + 1, [1], 2),
    (Model().predict, [1], 11),
    (functools.partial(uses_a_constant, 4), [], 12),
    (Point, [1, 2], "Point(x=1, y=2)"),
]


def name(value):
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else ""


@pytest.mark.parametrize(("function", "args", "expected"), AS_SOURCE, ids=name)
def test_functions_that_stand_alone_travel_as_source(run, function, args, expected):
    """Any Python can run them; with their comments, strings, imports and defaults as they were written."""
    packed = functions.pack(function)
    ended = run(Payload.of_function(function, args))

    assert packed.pickle is None
    assert 0 == ended.code, ended.errors
    assert expected == ended.record["value"]


@pytest.mark.parametrize(("function", "args", "expected"), AS_PICKLE, ids=name)
def test_other_functions_travel_by_value(run, function, args, expected):
    """With what they close over and what decorators add; the job doesn't have their module."""
    packed = functions.pack(function)
    ended = run(Payload.of_function(function, args))

    assert packed.source is None
    assert 0 == ended.code, ended.errors
    assert expected in (ended.record["value"], (ended.record["metadata"] or {}).get("repr"))


def test_source_is_a_module_with_the_imports_and_the_function():
    """Comments stay, decorators go, and annotations are text."""
    lines = functions.pack(registered).source.split("\n")

    assert "from __future__ import annotations" == lines[0]
    assert ["def registered(n):", "    return n", ""] == lines[-3:]
    assert (
        "from collections import OrderedDict as Ordered; import math as math; import os as os; "
        "from math import sqrt as sqrt"
    ) in functions.pack(uses_modules).source.split("\n")[0].replace("import os.path; ", "")


@pytest.mark.parametrize("function", [registered, uses_modules])
def test_source_is_on_the_lines_of_its_file(function):
    """A traceback from the job names file and line as they are in the DAG folder."""
    packed = functions.pack(function)
    written = Path(__file__).read_text().split("\n")
    shipped = packed.source.split("\n")

    assert "test_functions.py" == packed.file
    assert [line for line in shipped[2:-1] if line] == [
        written[number] for number, line in enumerate(shipped[:-1]) if number > 1 and line
    ]


def says_nothing():
    """Only a docstring."""


def does_nothing():
    pass


def is_not_written_yet(): ...  # fmt: skip


@pytest.mark.parametrize("function", [says_nothing, does_nothing, is_not_written_yet])
def test_empty_functions_are_refused(function):
    """A job of nothing is a mistake."""
    with pytest.raises(PayloadError) as caught:
        functions.pack(function)

    assert f"Function {function.__name__!r} has nothing to run: its body is empty." == str(caught.value)


def test_functions_that_close_over_what_can_not_travel_are_refused():
    """The message names the function and the way out."""
    lock = threading.Lock()

    def holds():
        return lock.locked()

    with pytest.raises(PayloadError) as caught:
        functions.pack(holds)

    assert "holds' can't be sent to the job: cannot pickle '_thread.lock' object." in str(caught.value)
    assert "import or build that inside the function" in str(caught.value)


def what_it_got(*args, **kwargs):
    return repr((args, kwargs))


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1: "a", (2, 3): "b"},
        math.nan,
        math.inf,
        -0.0,
        {"a": [None, True, 1.5, "x\0\ud800$(X)"]},
        {3},
        b"\x00\xff",
        Point(1, 2),
        10**30,
    ],
    ids=ascii,
)
def test_arguments_keep_their_type(run, value):
    """What JSON would change travels as a pickle."""
    ended = run(Payload.of_function(what_it_got, [value], {"key": value}))

    assert 0 == ended.code, ended.errors
    assert repr(((value,), {"key": value})) == ended.record["value"]


@pytest.mark.parametrize(("value", "inline"), [([1, {"a": None}], True), ((1,), False), (math.nan, False)])
def test_plain_arguments_travel_as_json(value, inline):
    """They need no pickle, so that any Python can read them."""
    assert inline is (Payload.of_function(what_it_got, [value]).arguments is not None)


def takes(table, *more, depth=1, **rest):
    return table, more, depth, rest


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ([threading.Lock()], {}, "table"),
        (["t", 1, threading.Lock()], {}, "args[2]"),
        (["t"], {"depth": threading.Lock()}, "depth"),
        ([(1,)], {"other": threading.Lock()}, "other"),
    ],
)
def test_arguments_that_can_not_travel_are_named(args, kwargs, named):
    """The message names the argument, its type and what to pass instead."""
    with pytest.raises(PayloadError) as caught:
        functions.pickle_arguments(takes, args, kwargs)

    message = str(caught.value)
    assert message.startswith(
        f"Argument {named!r} of 'takes', of type lock, can't be sent to the job: cannot pickle '_thread.lock'"
    )


def wants(table, session):
    return table, session


def wants_by_name(*tables, session=None):
    return tables, session


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (wants, ["t"], {}, True),
        (wants, ["t"], {"session": None}, True),
        (wants, [], {"table": "t"}, True),
        (wants, ["t", "mine"], {}, False),
        (wants, ["t"], {"session": "mine"}, False),
        (wants_by_name, ["a", "b", "c"], {}, True),
        (takes, ["t"], {}, False),
    ],
)
def test_the_job_passes_its_session_unless_the_caller_did(function, args, kwargs, expected):
    """An argument called session that was left out is the job's."""
    assert expected is functions.wants_session(function, args, kwargs)


@pytest.fixture
def dag_folder(tmp_path, monkeypatch):
    """A DAG file with a module beside it, imported as Airflow does; both are gone afterwards."""
    (tmp_path / "beside.py").write_text("STEP = 2\ndef add(n):\n    return n + STEP\n")
    (tmp_path / "dag_file.py").write_text(
        "import beside\nfrom beside import add\n"
        "def by_name(n):\n    return add(n)\n"
        "def by_module(n):\n    return beside.add(n)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("beside", "dag_file"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    return sys.modules["dag_file"]


@pytest.mark.parametrize("name", ["by_name", "by_module"])
def test_what_lies_beside_the_dag_file_travels(run, dag_folder, name):
    """The job has no such module, so what the function uses of it is pickled by value."""
    ended = run(Payload.of_function(getattr(dag_folder, name), [40]))

    assert 42 == ended.record["value"]


def test_names_of_callables_hold_no_address():
    """A name that is another one in each parse would make another version of the DAG each time."""

    class Model:
        def __call__(self):
            return 1

    name = "test_names_of_callables_hold_no_address.<locals>.Model"
    assert ["commented", name] == [functions.called(functools.partial(commented, 1)), functions.called(Model())]


@pytest.mark.parametrize("args", [[], [1, 2]])
def test_calls_that_must_fail_are_refused(args):
    """Before a node is busy with them."""
    with pytest.raises(PayloadError) as caught:
        Payload.of_function(commented, args)

    assert "Function 'commented' can't be called with these arguments" in str(caught.value)


def test_builtins_without_a_signature_are_refused():
    """Whether the session is to be passed can't be told then."""
    with pytest.raises(PayloadError, match="'max' can't be called"):
        Payload.of_function(max, [1, 2])
