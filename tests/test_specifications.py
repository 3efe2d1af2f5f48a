"""MLJobOperator(spec=…): the author's own service specifications, in any image."""

import pytest

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.operators import MLJobOperator
from tests.lab import POOL

TEXT = """
spec:
  containers:
  - name: greet
    image: /snowflake/images/snowflake_images/greeter:1.0
    command: ["sh", "-c", "echo hello $NAME"]
    env: {NAME: "%s"}
"""


def of(name):
    """Return a specification whose container greets a name."""
    container = {
        "name": "greet",
        "image": "/snowflake/images/snowflake_images/greeter:1.0",
        "command": ["sh", "-c", "echo hello $NAME"],
    }
    return {"spec": {"containers": [{**container, "env": {"NAME": name}}]}}


def task(**fields):
    """Return a function that creates the task."""
    return lambda: MLJobOperator(**{"task_id": "job", "compute_pool": POOL, "poll_interval": 0.1} | fields)


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("spec", [of("dict"), TEXT % "text"], ids=["dict", "text"])
def test_spec(airflow, spec, deferrable):
    """A job by specification has a log and no result, and its service is dropped."""
    run = airflow.run_task(task(spec=spec, deferrable=deferrable))

    assert "success" == run.state
    assert run.xcom("job", "logs") in {"hello dict", "hello text"}
    assert run.xcom("job") is None
    assert [] == airflow.jobs


def test_spec_is_templated(airflow):
    """Every string of a specification is a template field."""
    run = airflow.run_task(task(spec=of("{{ task.task_id }}")))

    assert "hello job" == run.xcom("job", "logs")


def test_spec_file(airflow, tmp_path):
    """A specification in a file beside the DAG file is read and templated."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "job.yaml").write_text(TEXT % "{{ dag.dag_id }}")
    run = airflow.run_task(task(spec="specs/job.yaml"), folder=tmp_path)

    assert "hello lab" == run.xcom("job", "logs")


def test_mapped_spec_files(airflow, tmp_path):
    """A mapped task reads the file that its run names."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(TEXT % f"{name} of {{{{ dag.dag_id }}}}")
    fields = {"task_id": "job", "compute_pool": POOL, "poll_interval": 0.1, "stage_name": "@default_args"}
    run = airflow.run_task(
        lambda: MLJobOperator.partial(**fields).expand(spec=["one.yaml", "two.yaml"]), folder=tmp_path
    )

    assert ["hello one of lab", "hello two of lab"] == [run.xcom("job", "logs", index) for index in range(2)]


@pytest.fixture
def staged(airflow, tmp_path):
    """Put a specification on the stage and return its path."""

    def staged(name, text):
        (tmp_path / name).write_text(text)
        airflow.query(f"PUT 'file://{tmp_path / name}' @ML_PAYLOADS/specs AUTO_COMPRESS = FALSE")
        return f"@ML_PAYLOADS/specs/{name}"

    return staged


def test_spec_on_a_stage(airflow, staged):
    """Snowflake reads a specification on a stage."""
    run = airflow.run_task(task(spec=staged("job.yaml", TEXT % "stage")))

    assert "hello stage" == run.xcom("job", "logs")


def test_template_on_a_stage(airflow, staged):
    """Snowflake fills in the variables of a template on a stage."""
    run = airflow.run_task(task(spec=staged("job.yaml", TEXT % "{{ who }}"), using={"who": "{{ task.task_id }}"}))

    assert "hello job" == run.xcom("job", "logs")


def test_template(airflow):
    """Snowflake fills in variables between raw and endraw, which Airflow leaves alone."""
    run = airflow.run_task(task(spec=TEXT % "{% raw %}{{ who | default('nobody') }}{% endraw %}", using={"who": "you"}))

    assert "hello you" == run.xcom("job", "logs")


def test_several_containers_and_instances(airflow):
    """Each line of the log names its instance and container."""
    document = of("main")
    document["spec"]["containers"].append(
        {
            "name": "other",
            "image": "/snowflake/images/snowflake_images/greeter:1.0",
            "command": ["sh", "-c", "echo index $SNOWFLAKE_JOB_INDEX"],
        }
    )
    run = airflow.run_task(task(spec=document, target_instances=2))

    assert [
        "[instance 0, greet] hello main",
        "[instance 0, other] index 0",
        "[instance 1, greet] hello main",
        "[instance 1, other] index 1",
    ] == run.xcom("job", "logs").splitlines()


def test_failure(airflow):
    """The error of a failed job has the container's exit code and its last lines."""
    document = of("x")
    document["spec"]["containers"][0]["command"] = ["sh", "-c", "echo out of luck; exit 3"]
    run = airflow.run_task(task(spec=document))

    assert isinstance(run.errors["job"], exceptions.MLJobFailedError)
    assert "exit code 3" in str(run.errors["job"])
    assert "out of luck" in run.errors["job"].log_tail
    assert [] == airflow.jobs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spec": {"spec": {"containers": []}}}, "spec.containers"),
        ({"spec": {"spec": {"containers": [{"name": "A_B", "image": "x"}]}}}, "spec.containers[0].name"),
        ({"spec": of("x"), "source": "a.py"}, "this one has both"),
        ({}, "this one has neither"),
        ({"spec": of("x"), "args": ["a"], "secrets": {"A": "s"}}, "args, secrets can't be given with spec"),
        ({"source": "a.py"}, "stage_name is missing"),
        ({"spec": of("x"), "enable_metrics": False}, "enable_metrics can't be given with spec"),
        ({"source": "a.py", "stage_name": "@s", "using": {"a": "b"}}, "using is for the variables of a spec"),
    ],
    ids=["no containers", "container name", "both", "neither", "not for specs", "no stage", "metrics", "using"],
)
def test_refused_while_parsing(fields, message):
    """A specification in the DAG file is checked when the file is parsed."""
    with pytest.raises(exceptions.InvalidJobSpecError) as raised:
        task(**fields)()

    assert message in str(raised.value)


def test_a_missing_file_is_an_import_error(airflow, tmp_path):
    """A missing file is an error while the DAG is parsed."""
    with pytest.raises(exceptions.InvalidJobSpecError, match=r"'specs/none.yaml' can't be read from"):
        airflow.run_task(task(spec="specs/none.yaml"), folder=tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spec": "spec:\n  containers: [}"}, "line 2"),
        ({"spec": TEXT % "{{ '{{ a }}' }}", "using": {}}, "a"),
        ({"spec": TEXT % "x", "using": {"a": "1"}}, "spec has no variables left"),
    ],
    ids=["no YAML", "no value", "nothing to fill in"],
)
def test_refused_before_the_submit(airflow, fields, message, tmp_path):
    """A specification that only the run has is checked before the submit."""
    run = airflow.run_task(task(**fields), folder=tmp_path)

    assert message in str(run.errors["job"])
    assert [] == airflow.jobs
