"""Masks: no name, address, id or token of an account reaches a recording.

Names are masked because the session knows them, the rest by its shape. Too much is masked rather than too little.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

# Every account has these; they identify none.
_SYSTEM_NAMES = frozenset({
    "", "ACCOUNTADMIN", "ORGADMIN", "GLOBALORGADMIN", "SECURITYADMIN", "SYSADMIN", "USERADMIN", "PUBLIC", "SNOWFLAKE",
    "SYSTEM_COMPUTE_POOL_CPU", "SYSTEM_COMPUTE_POOL_GPU",
})  # fmt: skip
# Other people's words, in the columns of SHOW and DESCRIBE.
_PRIVATE_COLUMNS = frozenset({"owner", "application", "managing_object_name", "ip_address"})
_OPEN_OWNERS = re.compile(r"SYSTEM\$\w+|SNOWFLAKE|<\w+>|")
_PLACEHOLDER = re.compile(r"<[A-Z_]+>")
# Parameters of signed addresses, and the hosts that hold an account's or a bucket's name.
_SIGNATURE = r"(?<=[?&])((?:X-Amz-|X-Goog-|sig|se|sv|token|Signature|Expires|AWSAccessKeyId)[\w-]*)=[^&\s'\"]+"
_STORAGE = r"(?:blob\.core\.windows\.net|s3[\w.-]*\.amazonaws\.com|storage\.googleapis\.com)"
# Any long text of mixed letters and digits. Digests are of lower case, names of upper case.
_MIXED = r"(?=[\w+/=-]*[a-z])(?=[\w+/=-]*[A-Z])(?=[\w+/=-]*\d)"
_HEX = "[0-9a-f]"
_SHAPES = (
    # Tokens first: parts of them look like other things.
    (re.compile(r"\beyJ[\w-]+(?:\.[\w-]+)*"), "<TOKEN>"),
    (re.compile(r"\bver:\d+-hint:[\w+/=:-]+"), "<TOKEN>"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), "<TOKEN>"),
    (re.compile(_SIGNATURE), r"\1=<TOKEN>"),
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b"), "<EMAIL>"),
    (re.compile(r"\b[\w.-]+\.(?=snowflake(?:computing)?\.(?:com|cn|app)\b)", re.IGNORECASE), "<HOST>."),
    (re.compile(rf"\b[\w.-]+(?=\.{_STORAGE})"), "<BUCKET>"),
    (re.compile(rf"\b{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}\b", re.IGNORECASE), "<ID>"),
    (re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])"), "<IP>"),
    (re.compile(rf"(?<![\w+/=]){_MIXED}[A-Za-z0-9+=_-]{{32,}}(?![\w+=])"), "<TOKEN>"),
)


@dataclass(frozen=True)
class Mask:
    """Replaces names by what they are, e.g. ``<ROLE>``, and other private text by its shape.

    :param names: pairs of a placeholder's word and a name; the first word of a name counts.
    """

    names: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, **names):
        """Build a mask from words and the names, or lists of names, that they stand for."""
        pairs = []
        for word, values in names.items():
            for value in [values] if isinstance(values, str) or not isinstance(values, Iterable) else values:
                plain = str(value or "").strip('"')
                if plain.upper() not in _SYSTEM_NAMES:
                    pairs.append((word.upper(), plain))
        # The longest first: a name may be part of another one.
        return cls(tuple(sorted(pairs, key=lambda pair: -len(pair[1]))))

    def __call__(self, text):
        """Mask a text."""
        for shape, replacement in _SHAPES:
            text = shape.sub(replacement, text)
        return self._of_names(text)

    def cell(self, column, text):
        """Mask the text of a cell; columns that hold other people's names are masked whole."""
        masked = self(text)
        if column.lower() in _PRIVATE_COLUMNS and not _OPEN_OWNERS.fullmatch(masked):
            return masked if masked in _SYSTEM_NAMES else f"<{column.upper()}>"
        return masked

    @cached_property
    def _pattern(self):
        # A host name writes an underscore as a hyphen.
        forms = (f"{re.escape(name)}|{re.escape(name.replace('_', '-'))}" for _, name in self.names)
        return re.compile(
            rf"{_PLACEHOLDER.pattern}|(?<![A-Za-z0-9])(?:{'|'.join(forms)})(?![A-Za-z0-9])", re.IGNORECASE
        )

    def _of_names(self, text):
        if not self.names:
            return text
        words = {name.replace("_", "-").upper(): word for word, name in reversed(self.names)}

        def placeholder(match):
            word = words.get(match[0].replace("_", "-").upper())
            # A placeholder stays: its word may be a name, too.
            return match[0] if word is None else f"<{word}>"

        return self._pattern.sub(placeholder, text)

    def leaks(self, document):
        """Return the kinds of names that a document still holds: a last check before it is written."""
        text = _PLACEHOLDER.sub("", json.dumps(document, ensure_ascii=False))
        return sorted(set(_PLACEHOLDER.findall(self._of_names(text))))
