"""``@task.mljob``: the operator whose payload is the decorated function."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_provider_mljobs.launcher.contract import SESSION
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.airflow_internals import CONTEXT_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_mljobs.task.fields import JobFields

# The source is the function itself; there is nothing to render in it.
_NOT_FOR_FUNCTIONS = {"source", "spec", "using", "entrypoint", "args"}


class _MLJobDecoratedOperator(DecoratedOperator, MLJobOperator):
    custom_operator_name = "@task.mljob"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(field for field in MLJobOperator.template_fields if field not in _NOT_FOR_FUNCTIONS),
    )
    template_fields_renderers = {  # noqa: RUF012 (Airflow's)
        **DecoratedOperator.template_fields_renderers,
        **MLJobOperator.template_fields_renderers,
    }
    shallow_copy_attrs: Sequence[str] = ("python_callable", "function")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        op_args, op_kwargs = list(op_args or ()), dict(op_kwargs or {})
        # The job passes the session; Airflow wants to see every argument when the DAG is parsed.
        parameters = list(inspect.signature(python_callable).parameters)
        if SESSION in parameters[len(op_args) :]:
            op_kwargs.setdefault(SESSION, None)
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            source=python_callable,
            entrypoint=None,
            args=(),
            **kwargs,
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        # Airflow handles the outputs of execute() only.
        return self._handle_output(super().execute_complete(context, event))

    def job_fields(self, context: Context | None = None) -> JobFields:
        # The job passes the session itself.
        kwargs = {name: value for name, value in self.op_kwargs.items() if name != SESSION or value is not None}
        # As in any task function, a parameter named after a context variable gets that variable.
        for name in list(inspect.signature(self.python_callable).parameters)[len(self.op_args) :]:
            if name in CONTEXT_KEYS and name not in kwargs and (context is None or name in context):
                kwargs[name] = None if context is None else context[name]  # type: ignore[literal-required]
        return replace(super().job_fields(context), args=list(self.op_args), kwargs=kwargs)


def mljob_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,  # noqa: FBT001 (Airflow passes it by position)
    **kwargs: Any,
) -> TaskDecorator:
    """Turn a function into a task that runs it as a Snowflake ML Job: ``@task.mljob``.

    The function runs inside the job: put its imports in its body. An argument called ``session`` that the caller
    leaves out is the job's Snowpark session. Example::

        @task.mljob(compute_pool="ML_POOL", stage_name="@ml.payloads")
        def evaluate(model_path: str, session) -> dict:
            ...

    :param python_callable: the function.
    :param multiple_outputs: whether a returned dict becomes one XCom a key; by default if it is annotated as a dict.
    :param kwargs: the arguments of :class:`~airflow_provider_mljobs.operators.MLJobOperator` but source, entrypoint and
        args, and those of any task.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_MLJobDecoratedOperator,
        **kwargs,
    )
