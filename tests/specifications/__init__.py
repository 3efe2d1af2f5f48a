"""One corpus of service specifications that the provider and the embedded Snowflake answer alike.

Each file holds groups: ``source`` cites Snowflake's documentation, by page and sentence, and ``documents`` follow from
it. A document is a fragment in YAML's flow style, under the key that says where it belongs (see ``_PLACES``). A refused
document has the text of the ``provider`` and of ``snowflake``. Where only one refuses it, ``because`` is the reason.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

_IMAGE = "/snowflake/images/snowflake_images/greeter:1.0"
_CONTAINER = f"{{name: main, image: {_IMAGE}}}"
_LOCAL = "{name: v, source: local}"
_PLACES = {
    "document": "%s",
    "spec": f"spec: {{containers: [{_CONTAINER}], %s}}",
    "container": f"spec: {{containers: [{{name: main, image: {_IMAGE}, %s}}], volumes: [{_LOCAL}]}}",
    "secret": f"spec: {{containers: [{{name: main, image: {_IMAGE}, secrets: [{{%s}}]}}]}}",
    "endpoint": f"spec: {{containers: [{_CONTAINER}], endpoints: [{{name: e, %s}}]}}",
    "volume": f"spec: {{containers: [{_CONTAINER}], volumes: [{{name: v, %s}}]}}",
}


@dataclass(frozen=True, kw_only=True)
class Document:
    """A specification and its answers.

    :param id: the file and the number in it, for pytest.
    :param text: the specification in YAML.
    :param source: the sentence of Snowflake's documentation that decides.
    :param provider: the text of the provider's refusal; empty if it accepts the document.
    :param snowflake: the text of Snowflake's refusal; empty if it accepts the document.
    :param because: the reason why the two differ.
    """

    id: str
    text: str
    source: str
    provider: str = ""
    snowflake: str = ""
    because: str = ""


def corpus():
    """Return all documents."""
    return [document for path in sorted(Path(__file__).parent.glob("*.yaml")) for document in _documents(path)]


def _documents(path):
    groups = yaml.safe_load(path.read_text())
    entries = [(group["source"], entry) for group in groups for entry in group["documents"]]
    for number, (source, entry) in enumerate(entries, 1):
        ((place, fragment),) = [(key, value) for key, value in entry.items() if key in _PLACES]
        answers = {key: value for key, value in entry.items() if key != place}
        yield Document(id=f"{path.stem}-{number}", source=source, text=_PLACES[place] % fragment, **answers)
