"""The payload's function: from its source, or from a pickle."""

from __future__ import annotations

import ast
import linecache
import sys
import types
from typing import TYPE_CHECKING, Any

from .contract import APP, FUNCTION_PICKLE
from .pickles import unpickle

if TYPE_CHECKING:
    from pathlib import Path


def load_function(manifest: dict[str, Any], directory: Path) -> Any:
    """Return the payload's function.

    :param directory: where the payload was unpacked.
    """
    if manifest["pickled_by"]:
        what = [f"Function {manifest['function']!r}"]
        (function,) = unpickle(directory / FUNCTION_PICKLE, manifest["pickled_by"], what)
        return function
    path, file = directory / APP / manifest["entrypoint"], manifest["file"]
    module = types.ModuleType(path.stem)
    # Classes that the function defines must be found by their module's name when they are pickled.
    sys.modules[path.stem] = module
    text = path.read_text("utf-8")
    # Tracebacks name the line of the file that the function was written in; this shows them that line.
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(_without_annotations(text), file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 (the job)
    return getattr(module, manifest["function"])


def _without_annotations(text: str) -> ast.Module:
    """Return the module's tree without its function's annotations: what they name need not exist in the job."""
    tree = ast.parse(text)
    block: Any = tree.body[-1]
    function: Any = block.body[0] if isinstance(block, ast.If) else block
    function.returns = None
    for node in ast.walk(function.args):
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree
