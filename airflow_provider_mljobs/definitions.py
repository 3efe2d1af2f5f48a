"""A payload and how it runs, declared once and run many times with other arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from airflow.sdk import DAG

from airflow_provider_mljobs import __version__
from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.names import Identifier, Namespace
from airflow_provider_mljobs.jobs.spec.rendering import ml_job_options, render
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task import build
from airflow_provider_mljobs.task.fields import is_known, optional_identifier

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.payload.git import GitSource

_PER_TASK = {"task_id", "args", "spec", "using"}


class MLJobDefinition:
    """A payload that several tasks, or Snowflake's own scheduler, run with different arguments.

    In a DAG file, or in a module that several DAG files import::

        train = MLJobDefinition(
            "train", source="src/", entrypoint="train.py", compute_pool="ML_POOL", stage_name="@ml.payloads"
        )

        with DAG("weekly_training"):
            train.task(task_id="small", args=["--depth", "3"])
            train.partial(task_id="sweep").expand(args=[["--depth", "5"], ["--depth", "7"]])

    All these tasks share one upload. :meth:`to_sql` gives the statement for a Snowflake TASK or a worksheet.

    :param name: the name of the definition, and of the jobs that :meth:`to_sql` starts: letters, digits, ``_``.
    :param source: as in :class:`~airflow_provider_mljobs.operators.MLJobOperator`; relative paths start at the folder
        of the DAG file that uses the definition.
    :param fields: arguments of :class:`~airflow_provider_mljobs.operators.MLJobOperator` but ``task_id``, ``args`` and
        ``spec``.
    :raises InvalidJobSpecError: if the name can't be a job's, or an argument belongs to a task.
    """

    _registered: ClassVar[dict[str, MLJobDefinition]] = {}

    def __init__(
        self,
        name: str,
        *,
        source: str | os.PathLike[str] | GitSource | Callable[..., Any],
        compute_pool: str,
        stage_name: str,
        **fields: Any,
    ) -> None:
        identifier = Identifier.parse(name, "name")
        if not identifier.is_bare:
            raise InvalidJobSpecError(f"name {name!r} can't be a job's: Snowflake takes no quoted names for jobs.")
        if refused := sorted(_PER_TASK & fields.keys()):
            raise InvalidJobSpecError(f"{', '.join(refused)} can't be given to a definition; pass it to task().")
        self.name = name
        self._identifier = identifier
        self._fields = {"source": source, "compute_pool": compute_pool, "stage_name": stage_name, **fields}

    @classmethod
    def register(cls, name: str, **fields: Any) -> Self:
        """Make a definition that :meth:`get` finds by its name, anywhere in this process.

        :raises InvalidJobSpecError: if another definition has the name.
        """
        definition = cls(name, **fields)
        registered = cls._registered.setdefault(name, definition)
        if registered._fields != definition._fields:
            raise InvalidJobSpecError(f"A definition {name!r} with other arguments is registered; choose another name.")
        return definition

    @classmethod
    def get(cls, name: str) -> MLJobDefinition:
        """Return a registered definition.

        :raises InvalidJobSpecError: if there is none; it names those that are.
        """
        if name not in cls._registered:
            names = ", ".join(sorted(cls._registered)) or "none"
            raise InvalidJobSpecError(f"No definition is registered as {name!r}. Registered: {names}.")
        return cls._registered[name]

    def task(self, task_id: str, args: Sequence[Any] = (), **overrides: Any) -> MLJobOperator:
        """Return a task that runs the definition.

        :param args: the payload's arguments.
        :param overrides: arguments of the operator, also such as the definition has.
        """
        return MLJobOperator(task_id=task_id, args=args, **{**self._fields, **overrides})

    def partial(self, task_id: str, **overrides: Any) -> Any:
        """Return tasks to be, one for each value that ``.expand(args=…)`` gives."""
        return MLJobOperator.partial(task_id=task_id, **{**self._fields, **overrides})

    def to_sql(
        self,
        args: Sequence[Any] = (),
        *,
        hook: MLJobHook,
        folder: str | os.PathLike[str] = ".",
        asynchronous: bool = True,
    ) -> str:
        """Upload the payload to stay, and return the statement that runs it: in a TASK, a worksheet, anywhere.

        Each run is a job of its own, ``<name>_<suffix>``, with its result in a directory of that name beside the
        payload. Removing payload, jobs and results is up to you. Example::

            with MLJobHook() as hook:
                print(train.to_sql(["--depth", "5"], hook=hook))

        :param args: the payload's arguments.
        :param hook: the connection by which the payload is uploaded.
        :param folder: where relative paths start.
        :param asynchronous: whether the statement returns at once; otherwise it ends with the job, and fails with it.
        :raises InvalidJobSpecError: if the arguments don't fit into a statement, or something would have to be copied
            for each run.
        """
        # A DAG of its own: not the one that is being declared around us.
        dag = DAG(self.name, schedule=None)
        dag.fileloc = str(Path(folder).absolute() / "definition")
        task = MLJobOperator(task_id=self.name, args=args, dag=dag, **{**self._fields, "managed": True})
        templated = [name for name in task.template_fields if not is_known(getattr(task, name))]
        if templated:
            raise InvalidJobSpecError(
                f"{', '.join(templated)} of definition {self.name!r} has templates, which only Airflow renders: give "
                "values to a statement that runs without it."
            )
        fields = task.job_fields()
        namespace = Namespace(
            optional_identifier(fields.database, "database") or hook.namespace.database,
            optional_identifier(fields.schema, "schema") or hook.namespace.schema,
        )
        spec = build.job_spec(
            fields,
            self._identifier,
            comment=json.dumps({"provider": __version__, "definition": self.name}),
            query_tag=json.dumps({"definition": self.name}),
            namespace=namespace,
            warehouse=hook.default_warehouse,
        )
        payload, arguments = build.payload_of(fields, namespace), fields.pack_arguments()
        if payload.copies:
            raise InvalidJobSpecError(
                f"Definition {self.name!r} has a source or imports on a stage, which would have to be copied for each "
                "run. Use files of your own, or a GitSource."
            )
        if arguments.files:
            raise InvalidJobSpecError(
                f"The arguments of definition {self.name!r} don't fit into a statement: pass text and numbers, or the "
                "name of a table or a stage file."
            )
        hook.client.runtimes.check_python(spec, [*payload.pickled, *arguments.pickled])
        place = hook.client.keep(spec, payload)
        image = hook.client.runtimes.image(spec).path
        options, job = ml_job_options(spec, place, arguments, image, generate_suffix=True)
        text = render({**job, "ASYNC": asynchronous})
        return statements.execute_ml_job(f"{spec.name}_", spec.compute_pool, render(options), text)

    def __repr__(self) -> str:
        return f"MLJobDefinition({json.dumps(self.name)})"
