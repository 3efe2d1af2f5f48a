"""Measures how comments and docstrings read: ``python -m tests.voice`` prints the numbers of each folder."""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("airflow_provider_mljobs", "example_dags", "tests")
# The most of each habit in 1 000 words. The best projects of the field have 0 to 0.4 of the first.
LIMITS = {
    "what": (re.compile(r"\bwhat(?:ever)?\b", re.IGNORECASE), 2.0),
    "somebody": (re.compile(r"\b(?:some|no|any)(?:body|one)\b|\bwho(?:m|so)?ever\b", re.IGNORECASE), 0.1),
    "goes on": (re.compile(r"\b(?:go|goes|going) on\b|\banew\b|\blikewise\b", re.IGNORECASE), 0.1),
    "tell": (re.compile(r"\btell(?:s|ing)?\b|\btold\b", re.IGNORECASE), 0.3),
}
# A name says what it holds; a participle doesn't.
PARTICIPLES = {"found", "known", "told", "shown", "kept", "taken", "left"}
# First words by which a docstring can't be read alone.
PRONOUNS = re.compile(
    r"(?:it|its|they|them|their|theirs|he|she|his|her|we|this|that|these|those|such|so|neither|nor|who|what)\b"
    r"|(?:one|ones|both|each|another|others|all|some|none)\s+(?:of (?:it|them|these|those)\b|(?:is|are|has|have|was"
    r"|were|does|do|can|may|must|stays?|gets?|goes|takes?|holds?|comes?|says?|leads?|needs?|fails?|ends?|works?)\b)",
    re.IGNORECASE,
)
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
CODE = re.compile(r"``.*?``|`[^`\n]*`|\"[^\"\n]*\"", re.DOTALL)
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Voice:
    """The measurements of some files.

    :param words: the words of their docstrings and comments.
    :param habits: how often each habit occurs.
    :param places: where, as ``file:line: text``, by habit.
    """

    words: int = 0
    habits: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=lambda: {habit: [] for habit in LIMITS})

    def add(self, file, line, text):
        """Measure one docstring or comment."""
        text = CODE.sub(" ", text)
        self.words += len(WORD.findall(text))
        for habit, (pattern, _) in LIMITS.items():
            for match in pattern.finditer(text):
                at = line + text.count("\n", 0, match.start())
                self.habits[habit] += 1
                self.places[habit].append(f"{file}:{at}: {text.splitlines()[text.count(chr(10), 0, match.start())]}")

    def per_thousand(self, habit):
        """Return how often a habit occurs in 1 000 words."""
        return 1000 * self.habits[habit] / max(1, self.words)


def python_files(*folders):
    """Return the Python files of some folders, by default of the project."""
    return sorted(path for folder in folders or FOLDERS for path in (ROOT / folder).rglob("*.py"))


def docstrings(tree):
    """Yield each docstring of a module with its line and the node that it describes."""
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS) and (text := ast.get_docstring(node)) is not None:
            yield node.body[0].lineno, text, node


def comments(source):
    """Yield each comment of a module with its line, without marks for tools."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("#!"):
            yield token.start[0], re.sub(r"(?:# )?(?:noqa|type): ?[\w\[\]:, -]*", "", token.string.lstrip("# "))


def measure(files, root=ROOT):
    """Measure the docstrings and comments of files."""
    voice = Voice()
    for file in files:
        source = file.read_text()
        name = file.relative_to(root)
        for line, text, _ in docstrings(ast.parse(source)):
            voice.add(name, line, text)
        for line, text in comments(source):
            voice.add(name, line, text)
    return voice


def unclear_beginnings(files, root=ROOT):
    """Return the docstrings of tests that can't be read alone, as ``file:line: text``."""
    return [
        f"{file.relative_to(root)}:{line}: {text.splitlines()[0]}"
        for file in files
        for line, text, node in docstrings(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test") and PRONOUNS.match(text)
    ]


def participles(files):
    """Return the variables, parameters and fields that are named by a participle, as ``file:line: name``."""
    return [
        f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if (name := _bound_name(node)) is not None and name.strip("_") in PARTICIPLES
    ]


def _bound_name(node):
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.attr
    return node.arg if isinstance(node, ast.arg) else None


def main(folders):
    """Print the numbers of each folder; with folders as arguments also the places."""
    for name in folders or [
        *sorted({str(path.parent.relative_to(ROOT)) for path in python_files()}),
        *FOLDERS,
    ]:
        files = python_files(name) if folders or name in FOLDERS else sorted((ROOT / name).glob("*.py"))
        voice = measure(files)
        numbers = "  ".join(f"{habit} {voice.per_thousand(habit):5.2f}" for habit in LIMITS)
        print(
            f"{name:45} {voice.words:6} words  {numbers}  "
            f"unclear {len(unclear_beginnings(files))}  participles {len(participles(files))}"
        )
        if folders:
            places = [place for habit in LIMITS for place in voice.places[habit]]
            print("\n".join([*places, *unclear_beginnings(files), *participles(files)]))


if __name__ == "__main__":
    main(sys.argv[1:])
