import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, Namespace
from airflow_provider_mljobs.jobs.spec.mounts import PLATFORM_PATHS, parse_endpoints, parse_volumes
from airflow_provider_mljobs.jobs.spec.refusals import check
from airflow_provider_mljobs.jobs.spec.rendering import PROTECTED_VOLUMES, RESULT_MOUNT, STAGE_MOUNT

IMAGE = "/db/schema/repository/image:1.0"
DB, ML = Identifier("DB"), Identifier("ML")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("@data/in", {"source": "stage", "stageConfig": {"name": "@DB.ML.DATA/in"}}),
        ('@s."my data"', {"source": "stage", "stageConfig": {"name": '@DB.S."my data"'}}),
        ({"source": "local"}, {"source": "local"}),
        ({"source": "memory", "size": "2Gi"}, {"source": "memory", "size": "2Gi"}),
        (
            {"source": "block", "size": "10Gi", "blockConfig": {"iops": 3000}},
            {"source": "block", "size": "10Gi", "blockConfig": {"iops": 3000}},
        ),
        (
            {"source": "stage", "stageConfig": {"name": "@data", "metadataCache": "1h"}, "uid": 0},
            {"source": "stage", "stageConfig": {"name": "@DB.ML.DATA", "metadataCache": "1h"}, "uid": 0},
        ),
    ],
    ids=["stage", "quoted stage", "local", "memory", "block", "stage in full"],
)
def test_volumes(given, expected):
    """A string is a path on a stage, a mapping a volume of a specification; stages are qualified."""
    volumes, mounts = parse_volumes({"/data": given}, Namespace(DB, ML))

    assert [{"name": "volume-data-bd47413b", **expected}] == volumes
    assert [{"name": "volume-data-bd47413b", "mountPath": "/data"}] == mounts
    check({"spec": {"containers": [{"name": "main", "image": IMAGE, "volumeMounts": mounts}], "volumes": volumes}})


def test_names_of_volumes():
    """Each path gives another valid name, and always the same one."""
    paths = ["/a/b", "/a-b", "/A/b", "/a_b", "/ä", "/1", "/-", "/stage-volume", "/" + "a" * 300, "/" + "a" * 301]
    given = {path: {"source": "local"} for path in paths}
    volumes, mounts = parse_volumes(given)
    names = [volume["name"] for volume in volumes]

    assert len(paths) == len(set(names) - set(PROTECTED_VOLUMES))
    assert paths == [mount["mountPath"] for mount in mounts]
    assert (volumes, mounts) == parse_volumes(given)
    check({"spec": {"containers": [{"name": "main", "image": IMAGE, "volumeMounts": mounts}], "volumes": volumes}})


def test_slashes_in_paths():
    """Repeated slashes don't make another directory."""
    _, mounts = parse_volumes({"/data//in/": {"source": "local"}})

    assert "/data/in" == mounts[0]["mountPath"]


def test_what_is_known_of_volumes_while_parsing():
    """A stage without a database and schema gets those of the connection later."""
    parse_volumes({"/data": "@data"})

    with pytest.raises(InvalidJobSpecError, match="no database and schema"):
        parse_volumes({"/data": "@data"}, ANYWHERE)


def test_the_argument_is_left_as_it_is():
    """The argument isn't changed."""
    given = {"/data": {"source": "stage", "stageConfig": {"name": "@data"}}}
    parse_volumes(given, Namespace(DB, ML))

    assert {"/data": {"source": "stage", "stageConfig": {"name": "@data"}}} == given


def test_the_platform_s_paths():
    """The mounts of the job itself are among the platform's paths."""
    assert {STAGE_MOUNT, RESULT_MOUNT, "/dev/shm"} <= set(PLATFORM_PATHS)


@pytest.mark.parametrize(
    "path", ["/mnt/job_stage", "/mnt/job_result/output", "/dev/shm/", "/dev", "/mnt", "/opt/env/bin"]
)
def test_the_platform_s_paths_are_not_mounted_over(path):
    """A platform path, its subdirectories and its parents are refused."""
    with pytest.raises(InvalidJobSpecError) as caught:
        parse_volumes({path: {"source": "local"}})

    assert f"{path!r} in volumes can't be mounted: the platform uses /" in str(caught.value)
    assert "Choose another path, e.g. /data." in str(caught.value)


@pytest.mark.parametrize("path", ["/mnt/job_stages", "/mnt/data", "/opt/environment", "/snowflakes"])
def test_paths_beside_the_platform_s(path):
    """A path that only begins like a platform path is accepted."""
    parse_volumes({path: {"source": "local"}})


PATH_FORM = "volumes is not valid: the path must be an absolute path without '.' and '..', e.g. /data, got"


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        (["@a"], "volumes must map mount paths to volumes, e.g. {'/data': '@db.schema.stage/path'}; got a list."),
        ("@a", "volumes must map mount paths to volumes, e.g. {'/data': '@db.schema.stage/path'}; got '@a'."),
        ({"data": "@a"}, f"{PATH_FORM} 'data'."),
        ({"/": "@a"}, f"{PATH_FORM} '/'."),
        ({"": "@a"}, f"{PATH_FORM} ''."),
        ({"/a/../b": "@a"}, f"{PATH_FORM} '/a/../b'."),
        ({"/a\0": "@a"}, "volumes is not valid: the path holds a NUL character"),
        ({1: "@a"}, f"{PATH_FORM} 1; put it in quotes."),
        ({"/a": "@a", "/a/": "@b"}, "'/a/' is in volumes twice; mount one volume there."),
        (
            {"/a": "local"},
            (
                "volumes['/a'] must be a path on a stage, e.g. '@db.schema.stage/path', or a volume, e.g. "
                "{'source': 'local'} or {'source': 'memory', 'size': '2Gi'}; got 'local'."
            ),
        ),
        ({"/a": None}, "volumes['/a'] must be a path on a stage, e.g. '@db.schema.stage/path', or a volume, e.g."),
        ({"/a": "@"}, "volumes['/a'].stageConfig.name must be a path on a stage, which begins with @, got '@'."),
        ({"/a": "@a b"}, "volumes['/a'] 'a b' is not a name of at most 3 parts."),
        ({"/a": "@a/../b"}, "'../b' can't be a path on a stage"),
        ({"/a": "@a/🚀"}, "volumes['/a'].stageConfig.name holds '🚀', which can't be written into a specification"),
        (
            {"/a": {"source": "@a/b"}},
            (
                "volumes['/a'].source '@a/b' is the first form of a stage volume, which Snowflake no longer accepts; "
                'write source: stage, stageConfig: {name: "@a/b"}.'
            ),
        ),
        ({"/a": {}}, "volumes['/a'].source is missing."),
        ({"/a": {"source": "memory"}}, "volumes is not valid: volumes['/a'].size is missing."),
        ({"/a": {"source": "local", "siz": 1}}, "volumes['/a'].siz is unknown; did you mean size?"),
        (
            {"/a": {"source": "local", "name": "a"}},
            "volumes['/a'].name can't stand here: it is made from the mount path.",
        ),
        (
            {"/a": {"source": "block", "size": "1G"}},
            "volumes['/a'].size must be a whole number of Gi from 1Gi to 65536Gi",
        ),
        ({"/a": {"source": {1}}}, "volumes['/a'].source is {1}, of type set"),
        (
            {f"/a{n}": {"source": "local"} for n in range(18)},
            "volumes has 18 volumes; a job can have 17 beside its own 3. Mount a directory",
        ),
        (
            {f"/a{n}": {"source": "block", "size": "1Gi"} for n in range(4)},
            "volumes has 4 block volumes; Snowflake takes 3.",
        ),
    ],
)
def test_volumes_that_no_job_can_have(volumes, message):
    """The message about an invalid volume names its mount path."""
    with pytest.raises(InvalidJobSpecError) as caught:
        parse_volumes(volumes)

    assert message in str(caught.value)


def test_endpoints():
    """Endpoints arrive in the specification as given, in order."""
    endpoints = [{"name": "board", "port": 6006}, {"name": "ray", "portRange": "12031-13000", "protocol": "TCP"}]

    assert endpoints == parse_endpoints(tuple(endpoints))
    assert [] == parse_endpoints(None)
    assert [] == parse_endpoints([])


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        ({"name": "board", "port": 6006}, "endpoints is not valid: endpoints must be a list, got a mapping."),
        ("board", "endpoints is not valid: endpoints must be a list, got 'board'."),
        (["board"], "endpoints[0] must be a mapping, got 'board'."),
        ([{"name": "board"}], "endpoints[0] needs either port or portRange; it has neither."),
        (
            [{"name": "Board", "port": 1}],
            "endpoints[0].name must be 1 to 63 lower-case letters, digits and '-', from a",
        ),
        ([{"name": "board", "prot": 1}], "endpoints[0].prot is unknown; did you mean port?"),
        (
            [{"name": "b", "port": 1}] * 2,
            "endpoints[1].name 'b' is already in endpoints[0].name; choose another one.",
        ),
        ([{"name": "b", "port": {1}}], "endpoints[0].port is {1}, of type set"),
    ],
)
def test_endpoints_that_no_job_can_have(endpoints, message):
    """The message about an invalid endpoint has its path in the list."""
    with pytest.raises(InvalidJobSpecError) as caught:
        parse_endpoints(endpoints)

    assert message in str(caught.value)
