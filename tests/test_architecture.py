import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "airflow_provider_mljobs"
ROOT = Path(__file__).parents[1]
# The layers that each layer may import. A layer is a folder; everything else is the shell.
MAY_IMPORT = {
    "launcher": {"launcher"},
    "shared": {"jobs", "shared"},
    "jobs": {"jobs", "launcher", "shared"},
    "gateway": {"gateway", "jobs", "launcher", "shared"},
    "shell": {"shell", "gateway", "jobs", "launcher", "shared"},
    "emulator": {"emulator"},
}
# The files beside the folders that don't belong to the shell.
SHARED = {"__init__", "exceptions", "report"}
# The packages of others that each layer must not import.
FOREIGN = {
    "launcher": {"airflow"},
    "shared": {"airflow", "snowflake"},
    "jobs": {"airflow", "snowflake"},
    "gateway": {"airflow"},
    "shell": set(),
    "emulator": {"airflow"},
}
LAUNCHER = f"{PACKAGE}.launcher"
# The launcher imports these only if a payload needs them.
LAUNCHER_MAY_USE = {"snowflake.snowpark", "cloudpickle", "pandas", "pyarrow", "numpy", "ray"}
SQL = (
    "JOB SERVICE",
    "SYSTEM$",
    "DROP SERVICE",
    "DESCRIBE S",
    "SHOW COMPUTE",
    "SPCS_",
    "PUT file",
    "REMOVE '",
    "LIST '",
)


def trees_of(root):
    """Parse all modules of the package below a directory, by their names."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    names = [".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return {name: ast.parse(file.read_text()) for name, file in zip(names, files, strict=True)}


def layer(module):
    """Return the layer of a module: its folder, "shared" for the few files that all layers use, else "shell"."""
    folder = module.split(".")[1] if "." in module else "__init__"
    if folder in SHARED:
        return "shared"
    return folder if folder in MAY_IMPORT else "shell"


TREES = trees_of(ROOT)


def is_type_checking(node):
    """Whether a node is for type checkers only."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def executed(tree):
    """Yield the nodes that an import executes: no function bodies, nothing for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not is_type_checking(node):
            yield node
            yield from executed(node)


def imports(tree, *, at_import_time=False):
    """Yield the imported names, e.g. ``a.b`` and ``a.b.c`` for ``from a.b import c``."""
    for node in executed(tree) if at_import_time else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Only the launcher, which has another name in the archive, may import its own modules relatively.
            base = ".".join([LAUNCHER, *filter(None, [node.module])]) if node.level else node.module
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def lies_in(module, packages):
    """Whether a module is one of some packages or inside one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def misplaced(module, tree, names):
    """Return the imports of a module that its layer may not have.

    :param names: the names of all modules.
    """
    own = layer(module)
    modules = {name for name in imports(tree) if lies_in(name, {PACKAGE}) and name in names and name != PACKAGE}
    downwards = {name for name in modules if layer(name) not in MAY_IMPORT[own]}
    return downwards | {name for name in imports(tree) if lies_in(name, FOREIGN[own])}


@pytest.mark.parametrize("module", TREES)
def test_layers_import_downwards_only(module):
    """jobs/ imports neither Airflow nor Snowflake, gateway/ no Airflow; the emulator and the layers don't meet."""
    assert set() == misplaced(module, TREES[module], TREES.keys())


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("stray.py", "from airflow_provider_mljobs.emulator import serve", "emulator"),
        ("task/notify/stray.py", "import airflow_provider_mljobs.emulator.server", "emulator.server"),
        ("jobs/stray.py", "from airflow_provider_mljobs.stray import x", "stray"),
        ("jobs/spec/stray.py", "from airflow_provider_mljobs.gateway import client", "gateway.client"),
        ("gateway/watcher/stray.py", "from airflow_provider_mljobs import stray", "stray"),
        ("emulator/stray.py", "from airflow_provider_mljobs.jobs import names", "jobs.names"),
        ("launcher/stray.py", "def f(): from airflow_provider_mljobs.jobs.values import codec", "jobs.values.codec"),
        ("jobs/stray.py", "if TYPE_CHECKING:\n    from airflow_provider_mljobs.task import stray", "task.stray"),
    ],
)
def test_a_module_that_no_list_names_is_checked(tmp_path, file, line, expected):
    """A new file belongs to the layer of its folder, and a new file beside the folders to the shell."""
    for place in ("stray.py", "task/stray.py", file):
        planted = tmp_path / PACKAGE / place
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_text(line if place == file else "")
    planted = {f"{PACKAGE}.{file.removesuffix('.py').replace('/', '.')}": ast.parse(line)}
    trees = TREES | trees_of(tmp_path)

    assert [{f"{PACKAGE}.{expected}"}] == [
        misplaced(name, trees[name], trees.keys()) & {f"{PACKAGE}.{expected}"} for name in planted
    ]


@pytest.mark.parametrize("line", ["import airflow", "from airflow.sdk import conf", "import snowflake.connector"])
def test_a_planted_import_of_a_foreign_package_is_seen(line):
    """A new file in jobs/ must not import Airflow or Snowflake."""
    assert misplaced(f"{PACKAGE}.jobs.values.stray", ast.parse(line), TREES.keys())


@pytest.mark.parametrize("module", TREES)
def test_the_package_root_gives_its_version_only(module):
    """Modules import nothing but the version from the package itself, which would lead to import circles."""
    names = {
        alias.name
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE
        for alias in node.names
        if f"{PACKAGE}.{alias.name}" not in TREES
    }

    assert names <= {"__version__"}
    assert PACKAGE not in {
        alias.name for n in ast.walk(TREES[module]) if isinstance(n, ast.Import) for alias in n.names
    }


def test_the_launcher_needs_the_standard_library_only():
    """The launcher imports the standard library, and a few packages inside functions: it runs in any image."""
    modules = [tree for name, tree in TREES.items() if lies_in(name, {LAUNCHER})]
    at_import_time = {name for tree in modules for name in imports(tree, at_import_time=True)}
    at_import_time -= {name for name in at_import_time if lies_in(name, {LAUNCHER})}
    needed = {name for tree in modules for name in imports(tree) if not lies_in(name, {LAUNCHER})}
    later = {name for name in needed if name.partition(".")[0] not in sys.stdlib_module_names}

    assert [] == [name for name in at_import_time if name.partition(".")[0] not in sys.stdlib_module_names]
    assert [] == [name for name in later if not lies_in(name, LAUNCHER_MAY_USE)]


def test_the_provider_shares_two_modules_with_the_launcher():
    """The launcher is another program: the provider uses its contract, and its readers for values on a stage."""
    ours = [tree for name, tree in TREES.items() if layer(name) != "launcher"]

    assert {f"{LAUNCHER}.contract", f"{LAUNCHER}.references"} == {
        name for tree in ours for name in imports(tree) if name in TREES and lies_in(name, {LAUNCHER})
    }


def test_report_needs_the_standard_library_only():
    """``from airflow_provider_mljobs import report`` works in any image, and on a laptop that has nothing else."""
    needed = {name.partition(".")[0] for module in ("", ".report") for name in imports(TREES[PACKAGE + module])}

    assert set() == needed - sys.stdlib_module_names


def test_no_import_cycles():
    """Each module can be imported first."""
    graph = {
        module: {name for name in imports(tree, at_import_time=True) if name in TREES and name != module}
        for module, tree in TREES.items()
    }
    while leaves := {module for module, needed in graph.items() if not needed & graph.keys()}:
        graph = {module: needed for module, needed in graph.items() if module not in leaves}

    assert [] == sorted(graph)


def circles(trees):
    """Return the groups of modules that need each other, imports for type checkers included."""
    graph = {
        module: {name for name in imported_modules(tree, trees) if name != module} for module, tree in trees.items()
    }
    reachable = {module: set(needed) for module, needed in graph.items()}
    for middle in graph:
        for module in graph:
            if middle in reachable[module]:
                reachable[module] |= reachable[middle]
    return {frozenset(other for other in reachable[module] if module in reachable[other]) for module in graph} - {
        frozenset()
    }


def imported_modules(tree, names):
    """Yield the modules that a module imports; of ``from a import b`` where b is a module, only ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield from {name for name in (module if module in names else node.module,) if name in names}


@pytest.mark.parametrize("is_emulator", [True, False], ids=["emulator", "provider"])
def test_no_import_circle(is_emulator):
    """Each part of the emulator, and of the provider, can be read without the parts that use it."""
    assert set() == circles({name: tree for name, tree in TREES.items() if (layer(name) == "emulator") is is_emulator})


def test_a_planted_import_circle_is_seen():
    """Modules that import each other for type checkers only form a circle, too."""
    lines = {
        "one": "if TYPE_CHECKING:\n    from emulator.two import x",
        "two": "from emulator import three",
        "three": "def f(): import emulator.one",
        "four": "from emulator.one import x",
    }
    trees = {f"emulator.{name}": ast.parse(line) for name, line in lines.items()}

    assert {frozenset({"emulator.one", "emulator.two", "emulator.three"})} == circles(trees)


def test_heavy_modules_are_loaded_where_they_are_used():
    """Importing the operators imports no heavy package: a DAG file is parsed every few seconds."""
    code = """
import json, sys
import airflow_provider_mljobs.operators, airflow_provider_mljobs.decorators
dag_file = list(sys.modules)
import airflow_provider_mljobs.triggers, airflow_provider_mljobs.hooks, airflow_provider_mljobs.emulator
print(json.dumps([dag_file, list(sys.modules)]))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    by_dag_file, by_all = json.loads(ended.stdout.splitlines()[-1])
    engine = ("snowflake.", "duckdb", "fakesnow")

    assert [] == [name for name in by_dag_file if name.startswith((*engine, "pandas", "pyarrow"))]
    assert [] == [name for name in by_all if name.startswith(engine)]


# The SQL of jobs, and that of the checks of an account.
STATEMENTS = {f"{PACKAGE}.gateway.statements", f"{PACKAGE}.gateway.doctor.statements"}
OURS = [module for module in TREES if layer(module) != "emulator" and module not in STATEMENTS]


def docstrings(tree):
    """Return the ids of the nodes that are docstrings."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, owners) and ast.get_docstring(n) is not None}


@pytest.mark.parametrize("module", OURS)
def test_sql_is_written_in_one_place(module):
    """All SQL of jobs is in gateway/statements.py, and that of the doctor in gateway/doctor/statements.py."""
    tree = TREES[module]
    skipped = docstrings(tree)
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in skipped]

    assert [] == [node.value for node in constants if any(words in str(node.value) for words in SQL)]


# The only code that may parse text from outside: its one reader, and the launcher, which runs in the container.
READERS = {f"{PACKAGE}.jobs.untrusted"}
# A default of the DAG author's own function, which Python has parsed before, and JSON that the module wrote itself.
PARSED_ALREADY = {f"{PACKAGE}.jobs.payload.source_code": {"ast.literal_eval"}, f"{PACKAGE}.report": {"json.loads"}}
PARSERS = {
    *("json.load", "json.loads", "json.JSONDecoder", "json.decoder", "ast.literal_eval", "pickle.load", "pickle.loads"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.safe_load", "yaml.safe_load_all"),
    *("yaml.SafeLoader", "yaml.CSafeLoader", "yaml.Loader", "yaml.compose", "yaml.parse", "yaml.scan"),
    *("tomllib.load", "tomllib.loads", "marshal.loads", "plistlib.loads", "eval", "exec"),
    *("cloudpickle.load", "cloudpickle.loads", "xml.etree", "configparser.ConfigParser"),
}


def names_used(tree):
    """Yield the dotted names that a module uses or imports, e.g. ``json.loads``."""
    yield from imports(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Name):
            yield node.id


@pytest.mark.parametrize(
    "module", [name for name in TREES if layer(name) != "emulator" and not lies_in(name, {LAUNCHER})]
)
def test_text_from_outside_is_parsed_in_one_module(module):
    """Only jobs/untrusted.py parses text from outside, with one error and one set of bounds."""
    parsers = PARSERS & set(names_used(TREES[module])) - PARSED_ALREADY.get(module, set())

    assert module in READERS or set() == parsers
