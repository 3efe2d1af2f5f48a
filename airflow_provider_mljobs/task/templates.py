r"""Renders templates without a change to the text around them.

Jinja turns every line end of a template's own text into ``\n`` and drops the last one, also where there is nothing to
render: a key in an environment variable would lose its end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_mljobs.exceptions import InvalidJobSpecError

if TYPE_CHECKING:
    from airflow.sdk import Context
    from jinja2 import Environment


class TextKeepingOperator(BaseOperator):
    """An operator whose text arrives byte for byte but for the templates in it."""

    def render_template(
        self, content: Any, context: Context, jinja_env: Environment | None = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a value. Errors don't quote its text, which may be a secret.

        :raises InvalidJobSpecError: if a text isn't a valid template, with its field.
        """
        if not isinstance(content, str):
            return super().render_template(content, context, jinja_env, seen_oids)
        from jinja2 import TemplateSyntaxError

        env = jinja_env or self.get_template_env()
        if not _has_templates(content, env):
            return content
        # A character that the text doesn't use stands for a carriage return while Jinja renders.
        stand_in = next((char for char in map(chr, range(0xE000, 0xE100)) if char not in content), "\r")
        try:
            text = _outside(content, env, stand_in)
            rendered = super().render_template(text, context, env.overlay(keep_trailing_newline=True), seen_oids)
        except TemplateSyntaxError as error:
            names = (name for name in self.template_fields if _contains(getattr(self, name, None), content))
            field = next(names, "A field")
            raise InvalidJobSpecError(
                f"{field} has an invalid template in line {error.lineno} of its text: {error.message} "
                "To pass the text as it is, write {% raw %} before it and {% endraw %} after it."
            ) from None
        return rendered.replace(stand_in, "\r") if isinstance(rendered, str) else rendered


def _has_templates(text: str, jinja_env: Environment) -> bool:
    marks = (jinja_env.variable_start_string, jinja_env.block_start_string, jinja_env.comment_start_string)
    prefixes = (jinja_env.line_statement_prefix, jinja_env.line_comment_prefix)
    return any(mark in text for mark in (*marks, *filter(None, prefixes)))


def _outside(text: str, jinja_env: Environment, stand_in: str) -> str:
    """Replace the carriage returns outside of templates."""
    pairs = (
        (jinja_env.variable_start_string, jinja_env.variable_end_string),
        (jinja_env.block_start_string, jinja_env.block_end_string),
        (jinja_env.comment_start_string, jinja_env.comment_end_string),
    )
    template = "|".join(f"{re.escape(start)}.*?{re.escape(end)}" for start, end in pairs)
    parts = re.split(f"({template})", text, flags=re.DOTALL)
    return "".join(part if index % 2 else part.replace("\r", stand_in) for index, part in enumerate(parts))


def _contains(value: Any, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        return False
    return any(_contains(each, text) for each in value)
