# Functions of many shapes, for tests of their packing and of their work in a job.
import asyncio
import concurrent.futures
import dataclasses
import functools
import importlib
import math
import os
import os.path
import sys
import threading
from collections import OrderedDict as Ordered
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.payload import functions

FACTOR = 3
COUNT = 1


@dataclass
class Point:
    """A class of the DAG file whose instances jobs take and return."""

    x: int
    y: int


def shout(function):
    """Change a function's value, and point to the function with __wrapped__."""

    @functools.wraps(function)
    def shouted(*args):
        return function(*args).upper() + "!"

    return shouted


class Task:
    """The object that a decorator of Airflow puts in place of a function."""

    def __init__(self, function):
        self.function = function


def register(function):
    """Return a task without changing the function, as Airflow's decorators do."""
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


def quotes():
    text = '''a # b
        """indented"""
    # c '''
    return [text, "it's", 'say "no"', r"\d{{x}}", f"{'#'}"]


def matches(command):
    match command:
        case ["add", *numbers] if total := sum(numbers):
            return total
        case {"name": str(name), **rest}:
            return [name, rest]
        case _:
            return None


def sets_a_global(n):
    global made_here  # noqa: PLW0603 (occurs)
    made_here = n
    return made_here + 1


def has_all_kinds_of_arguments(a, /, b, *args, c, d="d", **kwargs):
    return [a, b, list(args), c, d, kwargs]


def generates(n):
    yield from range(n)


async def generates_late(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i


def defines_an_annotated_class():
    @dataclass
    class Local:
        n: int

    return dataclasses.fields(Local)[0].type is int


def handles_errors(n):
    try:
        return 1 / n
    except* ZeroDivisionError as errors:
        group = errors.exceptions
    return [type(error).__name__ for error in group]


def uses_a_wide_range():
    with open(os.devnull) as null, concurrent.futures.ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(lambda n=n: n**2) for n in range(3)]
    results = {future.result() for future in futures}
    assert_ = lambda: all(r >= 0 for r in results)  # noqa: E731 (occurs)
    return [*sorted(results), assert_(), null.closed]


@Task
def counts_down(n):
    return FACTOR if n == 0 else counts_down(n - 1)


def counts(n):
    global COUNT  # noqa: PLW0603 (occurs)
    COUNT += n
    return COUNT


class Model:
    """An object with a method that can be a payload."""

    bias = 10

    def predict(self, n):
        return self.bias + n

    def __call__(self, n):
        return self.bias * n

    def _hidden(self, n):
        return self.__secret(n)

    def __secret(self, n):
        return n


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
    (quotes, [], ['a # b\n        """indented"""\n    # c ', "it's", 'say "no"', "\\d{{x}}", "#"]),
    (matches, [["add", 1, 2]], 3),
    (sets_a_global, [1], 2),
    (generates, [3], [0, 1, 2]),
    (generates_late, [3], [0, 1, 2]),
    (defines_an_annotated_class, [], True),
    (handles_errors, [0], ["ZeroDivisionError"]),
    (uses_a_wide_range, [], [0, 1, 4, True, True]),
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
    (Model(), [2], 20),
    (functools.partial(uses_a_constant, 4), [], 12),
    (counts_down.function, [2], 3),
    (counts, [2], 3),
    (Point, [1, 2], "Point(x=1, y=2)"),
]


def name(value):
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else ""


@pytest.mark.parametrize(("function", "args", "expected"), AS_SOURCE, ids=name)
def test_functions_that_stand_alone_travel_as_source(call, function, args, expected):
    """Functions that stand alone travel as written, with comments, strings, imports and defaults."""
    packed = functions.pack(function)
    ended = call(function, *args)

    assert packed.pickle is None
    assert 0 == ended.code, ended.errors
    assert expected == ended.record["value"]


@pytest.mark.parametrize(("function", "args", "expected"), AS_PICKLE, ids=name)
def test_other_functions_travel_by_value(call, function, args, expected):
    """Other functions are pickled with their closures and decorators; the job doesn't have their module."""
    packed = functions.pack(function)
    ended = call(function, *args)

    assert packed.source is None
    assert 0 == ended.code, ended.errors
    assert expected in (ended.record["value"], (ended.record["metadata"] or {}).get("repr"))


def test_arguments_of_all_kinds_arrive(call):
    """Positional-only, keyword-only and other arguments arrive."""
    ended = call(has_all_kinds_of_arguments, 1, 2, 3, c=4, e=5)

    assert [1, 2, [3], 4, "d", {"e": 5}] == ended.record["value"]


def test_source_is_a_module_with_the_imports_and_the_function():
    """The source is a module with the function's imports and comments, and without its decorators."""
    lines = functions.pack(registered).source.split("\n")

    assert "" == lines[0]
    assert ["def registered(n):", "    return n", ""] == lines[-3:]
    assert (
        "from collections import OrderedDict as Ordered; import math as math; import os as os; "
        "from math import sqrt as sqrt"
    ) in functions.pack(uses_modules).source.split("\n")[0].replace("import os.path; ", "")


@pytest.mark.parametrize("function", [registered, uses_modules])
def test_source_is_on_the_lines_of_its_file(function):
    """A traceback from the job has file and line as in the DAG folder."""
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
    """A function with an empty body is refused."""
    with pytest.raises(PayloadError) as caught:
        functions.pack(function)

    assert f"Function {function.__name__!r} has an empty body: the job would do nothing." == str(caught.value)


def test_functions_that_close_over_what_can_not_travel_are_refused():
    """The message for a closure that can't be pickled names the function and the fix."""
    lock = threading.Lock()

    def holds():
        return lock.locked()

    with pytest.raises(PayloadError) as caught:
        functions.pack(holds)

    assert "holds' for the job: cannot pickle '_thread.lock' object." in str(caught.value)
    assert "import or build that inside the function" in str(caught.value)


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
        (commented, ["t"], {}, False),
    ],
)
def test_the_job_passes_its_session_unless_the_caller_did(function, args, kwargs, expected):
    """The job passes its session as the argument named session, unless the caller passes one."""
    assert expected is functions.wants_session(function, args, kwargs)


@pytest.fixture
def dag_folder(tmp_path, monkeypatch):
    """Import a DAG file with a module beside it, as Airflow does; remove both afterwards."""
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
def test_what_lies_beside_the_dag_file_travels(call, dag_folder, name):
    """Definitions of a module beside the DAG file, which the job lacks, are pickled by value."""
    ended = call(getattr(dag_folder, name), 40)

    assert 42 == ended.record["value"]


def test_names_of_callables_hold_no_address():
    """Names of callables have no addresses, which would give every parse another version of the DAG."""

    class Model:
        def __call__(self):
            return 1

    name = "test_names_of_callables_hold_no_address.<locals>.Model"
    assert ["commented", name] == [functions.called(functools.partial(commented, 1)), functions.called(Model())]


@pytest.mark.parametrize("name", ["by_name", "by_module"])
def test_what_travels_with_the_payload_is_imported(dag_folder, name):
    """A function that uses the task's imports travels as source."""
    packed = functions.pack(getattr(dag_folder, name), "source", importable={"beside"})

    assert packed.source.startswith(("from beside import add as add\n", "import beside as beside\n"))


def test_annotations_stay_text_where_the_dag_file_wants_them_so(call, tmp_path, monkeypatch):
    """``from __future__ import annotations`` of the DAG file holds for the function in the job."""
    (tmp_path / "future_dag.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass, fields\n\n"
        "def kind(n: Missing) -> Gone:\n    @dataclass\n    class Local:\n        n: Missing\n"
        "    return fields(Local)[0].type\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "future_dag", raising=False)
    module = importlib.import_module("future_dag")
    monkeypatch.setitem(sys.modules, "future_dag", module)
    ended = call(module.kind, 1)

    assert "Missing" == ended.record["value"]
    assert functions.pack(module.kind).source.startswith("from __future__ import annotations; ")


def test_a_file_that_has_changed_since_is_no_source(tmp_path, monkeypatch):
    """The job runs the code that Airflow loaded, even if its file has changed since."""
    file = tmp_path / "edited_dag.py"
    file.write_text("def answer():\n    return 41\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("edited_dag")
    monkeypatch.delitem(sys.modules, "edited_dag")
    file.write_text("def answer():\n    return 42 or None\n")
    packed = functions.pack(module.answer)

    assert packed.source is None
    with pytest.raises(PayloadError, match="differs from the text in its file"):
        functions.pack(module.answer, "source")


WHOLE_PROGRAM = """
import test_functions as these
from airflow_provider_mljobs.jobs.payload.archive import Payload
print([Payload.of_function(function).digest for function, _, _ in these.AS_SOURCE])
"""


def test_the_same_source_is_the_same_payload_in_any_process(in_any_process):
    """The payload of a function has the same name in any process, independent of the order of sets."""
    digests = in_any_process(WHOLE_PROGRAM)

    assert 1 == len(digests)


@pytest.mark.parametrize("function", [recurses, commented, uses_modules])
def test_any_function_can_be_pickled(run, function):
    """serializer="cloudpickle" pickles a function that could travel as source."""
    packed = functions.pack(function, "cloudpickle")

    assert (None, {"python", "cloudpickle"}) == (packed.source, set(packed.pickled_by))


REFUSED = [
    (shouted, "is wrapped by another decorator: do its work inside the function"),
    (uses_a_constant, "uses 'FACTOR' of its module, which isn't imported from an installed one: pass it as an arg"),
    (uses_a_neighbour, "uses 'recurses' of its module, which isn't imported from an installed one"),
    (makes_a_point, "uses 'Point' of its module, which isn't imported from an installed one"),
    (has_a_computed_default, "has a default for 'n' that is no plain value: use None and choose the value inside"),
    (closes_over(1), "closes over 'n': pass that as an argument, or build it inside"),
    (lambda n: n + 1, "is a lambda: write it with def"),
    (Model().predict, "is of type method, not a function written with def"),
    (functools.partial(uses_a_constant, 4), "is of type partial, not a function written with def"),
    (Point, "is of type type, not a function written with def"),
    (len, "is of type builtin_function_or_method, not a function written with def"),
    (Model._hidden, "differs from the text in its file"),
]


@pytest.mark.parametrize(("function", "reason"), REFUSED, ids=name)
def test_what_can_not_travel_as_source_is_refused_by_its_reason(function, reason):
    """The message for serializer="source" names the function, the reason, the fix, and "auto"."""
    with pytest.raises(PayloadError) as caught:
        functions.pack(function, "source")

    assert str(caught.value).startswith(f"Function {functions.called(function)!r} can't travel as source: it {reason}")
    assert str(caught.value).endswith(
        "Or leave serializer at 'auto': then the function is pickled, and the job needs the same Python."
    )


def test_modules_of_the_dag_folder_are_named_where_they_can_not_travel(dag_folder):
    """The message for a module of the DAG folder advises imports."""
    with pytest.raises(PayloadError, match="uses the module 'beside', which is not installed: pass it in imports"):
        functions.pack(dag_folder.by_module, "source")


def test_functions_without_a_file_have_no_source():
    """A function without a file, as from a shell, is pickled."""
    namespace = {}
    exec("def typed(n):\n    return n", namespace)  # noqa: S102 (as a shell does)
    packed = functions.pack(namespace["typed"])

    assert packed.pickle is not None
    with pytest.raises(PayloadError, match="it has no source in a file"):
        functions.pack(namespace["typed"], "source")


@pytest.mark.parametrize("serializer", ["json", "", None, 1])
def test_unknown_serializers_are_refused(serializer):
    """The message for an unknown serializer lists the known ones."""
    with pytest.raises(InvalidJobSpecError) as caught:
        functions.pack(recurses, serializer)

    assert f"serializer must be one of 'auto', 'source', 'cloudpickle'; got {serializer!r}." == str(caught.value)


@pytest.mark.parametrize("args", [[], [1, 2]])
def test_calls_that_must_fail_are_refused(args):
    """Arguments that don't fit the function are refused before the job is submitted."""
    with pytest.raises(PayloadError) as caught:
        functions.refuse_call(commented, args, {})

    assert "Function 'commented' can't be called with these arguments" in str(caught.value)


def test_builtins_without_a_signature_are_refused():
    """A built-in function without a signature is refused."""
    with pytest.raises(PayloadError, match="'max' can't be called"):
        functions.refuse_call(max, [1, 2], {})
