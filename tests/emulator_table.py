"""The table of supported statements in docs/emulator.md, made from the code: ``make docs`` writes it."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "emulator.md"
BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- end -->\n"


def render():
    """Return the table: one row per form, by the part that answers it."""
    from airflow_provider_mljobs import emulator

    with emulator.serve() as server:
        parts = server.account.extensions
    rows = ["| part | form | needs |", "|---|---|---|"]
    kinds = ("statements", "functions", "methods", "table_functions")
    for part, extensions in parts.items():
        forms = [form for kind in kinds for extension in extensions for form in getattr(extension, kind)]
        # Of forms that share a syntax, CREATE OR REPLACE needs the most.
        needs = {form.syntax.replace("|", "\\|"): _needs(form) for form in forms}
        rows.extend(f"| {part} | `{syntax}` | {needed} |" for syntax, needed in needs.items())
    return "\n".join(rows) + "\n"


def _needs(form):
    return "; ".join(need.text for need in getattr(form, "needs", ()))


def documented(text):
    """Return the table as it stands in the page."""
    return text.partition(BEGIN)[2].partition(END)[0]


def main():
    """Write the table into the page."""
    text = PAGE.read_text()
    PAGE.write_text(re.sub(f"(?s){re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: BEGIN + render() + END, text))


if __name__ == "__main__":
    main()
