"""Golden files: for each check, the recorded answers with date, region, version and provenance.

A file has one recording for each source. A run on an account replaces the recording of its own region, and leaves those
of other sources as they are: sources may contradict each other.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.account.answers import Answer

GOLDEN = Path(__file__).parent / "golden"
RECORDED, DOCUMENTED = "recorded: ", "documented: "


@dataclass(frozen=True)
class Recording:
    """The answers of one source to one check.

    :param provenance: ``documented: URL`` or ``recorded: source``.
    :param date: the day of the recording, or on which the source was read.
    :param region: the cloud and region; ``None`` if the source doesn't state it.
    :param version: Snowflake's version, likewise.
    :param answers: the answers by step.
    :param deviations: texts of the steps that were not as believed.
    """

    provenance: str
    date: str
    region: str | None = None
    version: str | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()

    def __post_init__(self):
        """Refuse a recording without a source."""
        if not self.provenance.startswith((RECORDED, DOCUMENTED)):
            raise ValueError(f"provenance must begin with {RECORDED!r} or {DOCUMENTED!r}, got {self.provenance!r}")

    @property
    def is_documented(self):
        """Whether it comes from documentation, whose samples leave out types and sometimes columns."""
        return self.provenance.startswith(DOCUMENTED)


def today():
    """Return the date of a new recording."""
    return datetime.now(UTC).date().isoformat()


def read(number, directory=GOLDEN):
    """Return the recordings of a check; none if there is no file."""
    file = directory / f"{number}.json"
    if not file.exists():
        return []
    return [
        Recording(
            provenance=each["provenance"],
            date=each["date"],
            region=each.get("region"),
            version=each.get("version"),
            answers={step: Answer.from_json(answer) for step, answer in each["answers"].items()},
            deviations=tuple(each.get("deviations", ())),
        )
        for each in json.loads(file.read_text("utf-8"))["recordings"]
    ]


def write(check, recording, mask, directory=GOLDEN):
    """Write a recording into the file of its check, in place of an earlier one of the same provenance.

    :raises ValueError: if a name of the account is still in it; then nothing is written.
    """
    document = {
        "provenance": recording.provenance,
        "date": recording.date,
        "region": recording.region,
        "version": recording.version,
        "answers": {step: answer.to_json(mask) for step, answer in recording.answers.items()},
        "deviations": [mask(text) for text in recording.deviations],
    }
    # A cloud's region may contain a word that is also a name.
    if leaks := mask.leaks({"answers": document["answers"], "deviations": document["deviations"]}):
        raise ValueError(f"The recording of {check.number} still holds a name: {', '.join(leaks)}. It isn't written.")
    file = directory / f"{check.number}.json"
    others = json.loads(file.read_text("utf-8"))["recordings"] if file.exists() else []
    recordings = [each for each in others if each["provenance"] != recording.provenance]
    directory.mkdir(parents=True, exist_ok=True)
    content = {"check": check.number, "belief": check.belief, "recordings": [*recordings, document]}
    file.write_text(_lines(content) + "\n", "utf-8")
    return file


def _lines(value, indent=""):
    """Write JSON with a line for each entry of an object and each row, so that changes can be read."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        entries = [f"{inner}{json.dumps(key)}: {_lines(item, inner)}" for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        entries = [f"{inner}{_lines(item, inner)}" for item in value]
    else:
        return json.dumps(value, ensure_ascii=False)
    first, last = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([first, ",\n".join(entries), f"{indent}{last}"])
