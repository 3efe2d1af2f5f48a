import importlib.util
import math
import sys
import types
import zipfile
from pathlib import Path

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.names import Identifier, Namespace
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.payload.imports import collect, plain, validate_imports
from airflow_provider_mljobs.jobs.payload.sources import Place, StageCopy
from airflow_provider_mljobs.jobs.values.arguments import Arguments

SHARED = {
    "src/utils/__init__.py": "VALUE = 1",
    "src/utils/sub/data.txt": "2",
    "src/helpers.py": "VALUE = 3",
    "src/my-code/a.py": "VALUE = 4",
}


@pytest.fixture
def shared(write):
    """Write code to import, and return the origin of relative paths and stage names."""
    folder = write("dags", SHARED)
    with zipfile.ZipFile(folder / "libs.zip", "w") as archive:
        archive.writestr("packed.py", "VALUE = 5")
    return Place(folder=folder, namespace=Namespace(Identifier("DB"), Identifier("ML")))


@pytest.fixture
def module():
    """Import a module as a DAG file does, under another name, until the test ends."""
    imported = []

    def module(path, name):
        package = [str(path.parent)] if path.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=package)
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        imported.append(name)
        spec.loader.exec_module(loaded)
        return loaded

    yield module
    for name in imported:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("item", "files"),
    [
        (("src/utils/", "utils"), {"imports/utils/__init__.py", "imports/utils/sub/data.txt"}),
        (("src/utils", "acme.ml.tools"), {"imports/acme/ml/tools/__init__.py", "imports/acme/ml/tools/sub/data.txt"}),
        (("src/utils", "acme/tools"), {"imports/acme/tools/__init__.py", "imports/acme/tools/sub/data.txt"}),
        (["src/utils", "tools"], {"imports/tools/__init__.py", "imports/tools/sub/data.txt"}),
        (("src/utils", None), {"imports/utils/__init__.py", "imports/utils/sub/data.txt"}),
        ("src/utils/", {"imports/utils/__init__.py", "imports/utils/sub/data.txt"}),
        ("src/utils/../utils", {"imports/utils/__init__.py", "imports/utils/sub/data.txt"}),
        (Path("src/utils"), {"imports/utils/__init__.py", "imports/utils/sub/data.txt"}),
        ("src/helpers.py", {"imports/helpers.py"}),
        (("src/helpers.py", "acme.tools"), {"imports/acme/tools.py"}),
        (("src/my-code", "my_code"), {"imports/my_code/a.py"}),
        ("libs.zip", {"imports/libs.zip"}),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_imports_lie_where_python_finds_them(shared, item, files):
    """Directories and files travel under their own or a given name; a zip file is not unpacked."""
    assert files == set(collect([item], shared).files)


def test_absolute_paths_need_no_folder(shared):
    """Absolute paths are imported without a folder."""
    assert {"imports/helpers.py"} == set(collect([shared.folder / "src/helpers.py"], Place()).files)


@pytest.mark.parametrize(
    ("item", "copied", "entry"),
    [
        (
            ("@ml.code/shared/utils/", "tools"),
            "@DB.ML.CODE/shared/utils/",
            {"name": "tools", "target": "tools", "input": "input/imports/0"},
        ),
        ("@code/utils", "@DB.ML.CODE/utils/", {"name": "utils", "target": "utils", "input": "input/imports/0"}),
        (
            ("@code/v2/helpers.py", "acme.tools"),
            "@DB.ML.CODE/v2/helpers.py",
            {"name": "acme.tools", "target": "acme/tools.py", "input": "input/imports/0/helpers.py"},
        ),
        (
            "@code/libs.zip",
            "@DB.ML.CODE/libs.zip",
            {"name": "", "target": "libs.zip", "input": "input/imports/0/libs.zip"},
        ),
        (
            ("snow://workspace/W/versions/live/utils", "utils"),
            "snow://workspace/W/versions/live/utils/",
            {"name": "utils", "target": "utils", "input": "input/imports/0"},
        ),
    ],
    ids=str,
)
def test_imports_on_stages_are_copied_by_snowflake(shared, item, copied, entry):
    """Snowflake copies imports on stages, and the launcher gives them their names."""
    collected = collect([item], shared)

    assert {} == collected.files
    assert (StageCopy(source=copied, target="input/imports/0"),) == collected.copies
    assert [entry | {"from": copied}] == collected.manifest


def test_modules_are_imported_from_where_they_lie(shared, module):
    """An imported module or package travels under the same name, or another."""
    utils = module(shared.folder / "src/utils/__init__.py", "utils_of_the_dag")
    helpers = module(shared.folder / "src/helpers.py", "acme_of_the_dag.helpers")
    collected = collect([utils, helpers, (helpers, "tools")], Place())

    assert {
        "imports/utils_of_the_dag/__init__.py",
        "imports/utils_of_the_dag/sub/data.txt",
        "imports/acme_of_the_dag/helpers.py",
        "imports/tools.py",
    } == set(collected.files)


def test_a_package_without_init_is_a_directory(shared):
    """A package without __init__.py travels if it has one directory."""
    package = types.ModuleType("acme")
    package.__path__ = [str(shared.folder / "src" / "my-code")]

    assert {"imports/acme/a.py"} == set(collect([package], Place()).files)


def test_a_module_from_a_zip_file_brings_the_zip_file(shared, monkeypatch):
    """A module from a zip file travels as that zip file."""
    monkeypatch.syspath_prepend(shared.folder / "libs.zip")
    packed = importlib.import_module("packed")
    monkeypatch.delitem(sys.modules, "packed")

    assert {"imports/libs.zip"} == set(collect([packed], Place()).files)


def test_imports_become_plain_data(shared, module):
    """Imports are converted to plain data of the same meaning, for copies and displays of tasks."""
    helpers = module(shared.folder / "src/helpers.py", "helpers_of_the_dag")
    items = [helpers, ("src/utils", "tools"), Path("libs.zip")]

    assert [
        (str(shared.folder / "src/helpers.py"), "helpers_of_the_dag"),
        ("src/utils", "tools"),
        ("libs.zip", None),
    ] == plain(items)
    assert collect(items, shared).files == collect(plain(items), shared).files


def several():
    """Make a package of two directories."""
    package = types.ModuleType("several")
    package.__path__ = ["/a/several", "/b/several"]
    return package


@pytest.mark.parametrize(
    ("imports", "message"),
    [
        (
            "src/utils",
            "imports must be a list of paths, modules or pairs, e.g. [('src/utils/', 'utils')]; got 'src/utils'.",
        ),
        (None, "imports must be a list of paths, modules or pairs"),
        (math, "imports must be a list of paths, modules or pairs"),
        ([3], "imports[0] must be a path, a module, or a pair (path, name); got 3."),
        (["src/utils", ""], "imports[1] must be a path, a module, or a pair (path, name); got ''."),
        ([("a", "b", "c")], "imports[0] must be a path, a module, or a pair (path, name); got ('a', 'b', 'c')."),
        ([("src/utils", 3)], "imports[0] 'src/utils' has the name 3; a name must be a text, e.g. 'utils'."),
        (
            ["src/my-code"],
            (
                "imports[0] 'src/my-code' can't be imported as 'my-code': a name has letters, digits and '_', in parts "
                "joined by dots. Give it one: ('src/my-code', 'name')."
            ),
        ),
        ([("src/utils", "a..b")], "imports[0] 'src/utils' can't be imported as 'a..b'"),
        ([("src/utils", "../up")], "imports[0] 'src/utils' can't be imported as '../up'"),
        ([("src/utils", "class")], "imports[0] 'src/utils' can't be imported as 'class'"),
        (["@code"], "imports[0] '@code' can't be imported as ''"),
        (
            [("src/utils", "json")],
            (
                "imports[0] 'src/utils' can't be imported as 'json': it would hide Python's own 'json'. "
                "Give it another "
                "name: ('src/utils', 'my_json')."
            ),
        ),
        ([("src/utils", "mljob_launcher")], "imports[0] 'src/utils' can't be imported as 'mljob_launcher'"),
        (
            [("libs.zip", "libs")],
            (
                "imports[0] 'libs.zip' is a zip file, whose modules have their own names. Pass it without the name "
                "'libs'."
            ),
        ),
        (
            ["src/utils", ("src/my-code", "utils")],
            (
                "imports[1] 'src/my-code' and imports[0] 'src/utils' are both imported as 'utils'. Give one of them "
                "another name."
            ),
        ),
        (["libs.zip", "old/libs.zip"], "imports[1] 'old/libs.zip' and imports[0] 'libs.zip' are both imported as"),
        (["src/utils", ("@code/u.py", "utils")], "imports[1] '@code/u.py' and imports[0] 'src/utils' are both"),
        (
            ["src/helpers.py", ("src/utils", "helpers.sub")],
            (
                "imports[1] 'src/utils' is imported as 'helpers.sub', but imports[0] 'src/helpers.py' "
                "makes 'helpers' a module, not a package. Give one of them another name."
            ),
        ),
        (
            [math],
            (
                "imports[0] 'math' is no Python file: it is built in or compiled. Add its distribution to "
                "pip_requirements."
            ),
        ),
        (
            [several()],
            (
                "imports[0] 'several' is a package in several directories: /a/several, /b/several. Name "
                "the one that the job needs: ('/a/several', 'several')."
            ),
        ),
        ([("@~/utils", "utils")], "imports[0] '@~/utils' is the stage of a user"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:40],
)
def test_what_can_not_be_imported_is_refused_while_the_dag_is_parsed(shared, imports, message):
    """The message for an invalid import names it and the fix, when the DAG is parsed."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate_imports(imports)

    assert str(caught.value).startswith(message)


def test_imports_are_looked_for_only_where_their_folder_is_known(shared):
    """Files of imports are checked only with their folder: other machines parse the DAG as well."""
    assert validate_imports(["src/nowhere"]) is None
    with pytest.raises(PayloadError) as caught:
        validate_imports(["src/nowhere"], shared)
    assert f"imports[0] 'src/nowhere' does not exist (looked at {shared.folder / 'src/nowhere'})." == str(caught.value)


def test_only_python_can_be_imported(shared, write):
    """A file that is no Python is refused as an import."""
    write("dags", {"data.csv": ""})

    with pytest.raises(InvalidJobSpecError) as caught:
        validate_imports(["data.csv"], shared)

    assert "imports[0] 'data.csv' is neither a directory nor a .py file nor a .zip file." == str(caught.value)


def test_what_is_only_called_zip_is_refused(shared, write):
    """A file that is only named .zip is refused, because Python would ignore it."""
    write("dags", {"bad.zip": "no zip"})

    with pytest.raises(PayloadError) as caught:
        collect(["bad.zip"], shared)

    assert "imports[0] 'bad.zip' is named .zip, but is no zip file." == str(caught.value)


def test_empty_imports_are_refused(shared, write):
    """A directory whose files are all excluded is refused as an import."""
    write("dags", {"src/empty/.gitignore": "*\n"})

    with pytest.raises(PayloadError) as caught:
        collect(["src/empty"], shared)

    assert "imports[0] 'src/empty' has no file that travels, so there is nothing to import." == str(caught.value)


def test_imports_within_each_other_share_no_file(shared, write):
    """Two directories may form one package, but not with a file of the same name."""
    write("dags", {"more/sub/data.txt": "", "other/more.py": ""})
    files = collect(["src/utils", ("other", "utils.extra")], shared).files

    assert "imports/utils/extra/more.py" in files
    with pytest.raises(InvalidJobSpecError) as caught:
        collect(["src/utils", ("more/sub", "utils.sub")], shared)
    assert (
        "imports[1] 'more/sub' has a file 'utils/sub/data.txt', as has another import. Give one of them another name."
    ) == str(caught.value)


@pytest.mark.parametrize("own", ["utils.py", "utils/__init__.py"])
@pytest.mark.parametrize("name", ["utils", "utils.sub"])
def test_imports_that_the_source_would_hide_are_refused(shared, write, own, name):
    """An import with the name of a module of the source is refused, because the source comes first."""
    source = write("source", {"main.py": "", own: ""})

    with pytest.raises(InvalidJobSpecError) as caught:
        Payload.of_source(source, "main.py", imports=[("src/utils", name)], place=shared)

    assert (
        f"imports[0] 'src/utils' is imported as {name!r}, but source {str(source)!r} has a module 'utils' as "
        "well. Give the import another name."
    ) == str(caught.value)


USE = """
import subprocess, sys
import helpers, packed, utils, acme.tools.a
text = open(utils.__file__.replace("__init__.py", "sub/data.txt")).read()
values = "import helpers, packed, utils; print(helpers.VALUE + packed.VALUE + utils.VALUE)"
child = subprocess.check_output([sys.executable, "-c", values], text=True).strip()
__return__ = [helpers.VALUE, packed.VALUE, utils.VALUE, acme.tools.a.VALUE, text, child]
"""
ALL = ["src/utils/", "src/helpers.py", "libs.zip", ("src/my-code", "acme.tools")]


def test_the_job_and_its_child_processes_import_them(shared, run, script):
    """Imports and their data files are importable in the job and its child processes."""
    ended = run(Payload.of_source(script(USE), None, imports=ALL, place=shared))

    assert 0 == ended.code, ended.errors
    assert [3, 5, 1, 4, "2", "9"] == ended.record["value"]


def test_those_on_stages_are_imported_alike(shared, run, script):
    """Imports on stages are importable as well; the test copies their files as Snowflake does."""
    imports = [
        ("@code/utils_v2/", "utils"),
        ("@code/helpers_v2.py", "helpers"),
        "@code/libs.zip",
        ("src/my-code", "acme.tools"),
    ]
    staged = {
        "@DB.ML.CODE/utils_v2/": shared.folder / "src/utils",
        "@DB.ML.CODE/helpers_v2.py": shared.folder / "helpers_v2.py",
        "@DB.ML.CODE/libs.zip": shared.folder / "libs.zip",
    }
    (shared.folder / "helpers_v2.py").write_text("VALUE = 3")
    ended = run(Payload.of_source(script(USE), None, imports=imports, place=shared), staged=staged)

    assert 0 == ended.code, ended.errors
    assert [3, 5, 1, 4, "2", "9"] == ended.record["value"]


def test_stages_without_the_import_fail_the_job(shared, run, script):
    """The message for an import without files names its stage."""
    ended = run(Payload.of_source(script(""), None, imports=["@code/utils/"], place=shared))

    assert 1 == ended.code
    assert (
        "'@DB.ML.CODE/utils/' is empty or missing: Snowflake copied no file from it. A path that ends in .py or .zip "
        "is one file, any other a directory."
    ) == ended.record["metadata"]["message"]


def uses_an_import():
    """Use a module that only the job can import."""
    import helpers

    return helpers.VALUE


def test_functions_have_imports_too(shared, run):
    """A function imports the task's imports in its body."""
    payload = Payload.of_function(uses_an_import, imports=["src/helpers.py"], place=shared)

    assert 3 == run(payload, Arguments.of_function(uses_an_import)).record["value"]
