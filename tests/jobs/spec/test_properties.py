import yaml
from hypothesis import given, strategies as st

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.documents import select
from airflow_provider_mljobs.jobs.spec.mounts import parse_endpoints, parse_volumes
from airflow_provider_mljobs.jobs.spec.refusals import check
from airflow_provider_mljobs.jobs.spec.secrets import parse_secrets
from airflow_provider_mljobs.jobs.spec.specification import merge, parse, validate_using
from airflow_provider_mljobs.jobs.values.escaping import to_ascii

KEYS = [
    "spec",
    "containers",
    "name",
    "image",
    "env",
    "args",
    "volumeMounts",
    "mountPath",
    "volumes",
    "source",
    "size",
    "stageConfig",
    "blockConfig",
    "resources",
    "limits",
    "requests",
    "memory",
    "nvidia.com/gpu",
    "secrets",
    "snowflakeSecret",
    "envVarName",
    "endpoints",
    "port",
    "portRange",
    "serviceRoles",
]
TEXTS = ("main", "own", "local", "block", "stage", "memory", "@s", "1Gi", "/a", "TCP")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TEXTS)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(KEYS), parts, max_size=5),
    max_leaves=25,
)
MAIN = {"name": "main", "image": "/db/schema/repository/image:1.0"}
NAMES = st.sampled_from(["main", "own", "other"])


def lists(**fields):
    """Overrides of a list of named items: removed, emptied, or with items of these and other fields."""
    items = st.fixed_dictionaries({"name": NAMES}, optional=fields) | DOCUMENTS
    return st.none() | st.just([]) | st.lists(items, min_size=1, max_size=2)


MOUNTS = lists(mountPath=st.sampled_from(["/own", "/elsewhere"]))
OVERRIDES = st.none() | st.fixed_dictionaries(
    {}, optional={"containers": lists(volumeMounts=MOUNTS, env=DOCUMENTS), "volumes": lists(source=DOCUMENTS)}
)


def attempt(call, *args, **kwargs):
    """Return the result of a call, or ``None`` if it refuses its arguments."""
    try:
        return call(*args, **kwargs)
    except InvalidJobSpecError:
        return None


@given(DOCUMENTS)
def test_any_value_is_taken_or_refused(value):
    """Any value of a DAG is accepted or refused with InvalidJobSpecError."""
    attempt(parse, value)
    attempt(check, {"spec": value})
    attempt(check, {"spec": {"containers": [value], "volumes": [value], "endpoints": [value]}})
    attempt(parse_volumes, {"/data": value})
    attempt(parse_secrets, {"KEY": value})
    attempt(validate_using, {"name": value})
    attempt(parse_endpoints, value)


@given(st.text() | st.text(alphabet="ab:- []{},&*<!'\"\n\t#|>?%1.0~@"))
def test_any_text_is_read_or_refused(text):
    """Any text is read as YAML or refused with InvalidJobSpecError."""
    attempt(parse, text)


@given(text=st.text())
def test_texts_arrive_as_they_are(text):
    """An accepted text reads back from the rendered JSON, by PyYAML and by the provider."""
    document = {"spec": {"containers": [{**MAIN, "env": {"A": text}, "args": [text]}]}}
    if attempt(lambda: check(document) or document) is not None:
        assert document == yaml.safe_load(to_ascii(document))
        assert document == parse(to_ascii(document))


@given(env=DOCUMENTS, override=OVERRIDES | DOCUMENTS)
def test_overrides_leave_what_the_job_needs(env, override):
    """Overrides can't remove the container, its protected volume, or the only mount of that volume."""
    mount, volume = {"name": "own", "mountPath": "/own"}, {"name": "own", "source": "local"}
    containers = [{**MAIN, "env": env, "volumeMounts": [mount]}]
    document = {"spec": {"containers": containers, "volumes": [volume]}}
    merged = attempt(merge, document, {"spec": override}, protected=("own",), required_containers=("main",))
    if merged is not None:
        mounts = [each for _, each in select(merged, "spec.containers[].volumeMounts[]") if isinstance(each, dict)]

        assert "main" in [name for _, name in select(merged, "spec.containers[].name")]
        assert [volume] == [each for each in merged["spec"]["volumes"] if each["name"] == "own"]
        assert [mount] == [each for each in mounts if each.get("name") == "own"]
