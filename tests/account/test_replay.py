"""Recorded answers are replayed: the provider reads each of them, and the embedded Snowflake answers alike."""

import json
import re
from dataclasses import dataclass

import pytest

from airflow_provider_mljobs.exceptions import GatewayError
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.connection import translate
from airflow_provider_mljobs.jobs.outcome.failures import Failure, failure_of
from tests.account.answers import Answer, Column, Refusal
from tests.account.comparison import differences, shape
from tests.account.golden import GOLDEN, read
from tests.account.masks import Mask
from tests.account.readers import fault_of, readers_of

# Steps that no check asks for: other forms of an answer, for the provider only.
ALSO = "also_"
_ONE_TYPE = "the SQL engine has one type for all semi-structured values"
# Recorded answers from which the embedded Snowflake deviates, by check, step and a part of the source: the differences,
# and the reason.
DEVIATIONS = {
    ("C-71", "directory", "sql/list"): (
        ["has the columns [] in addition, and lacks ['sha1']"],
        "the documentation lists the column as not used, and its sample outputs don't have it",
    ),
    ("C-37", "all", "get_job_history"): (
        [
            "ID is TEXT instead of FIXED",
            "INSTANCE_STATUSES is VARIANT instead of OBJECT",
            "PARAMETERS is VARIANT instead of OBJECT",
            "MANAGING_OBJECT is VARIANT instead of OBJECT",
        ],
        f"{_ONE_TYPE}; ids of jobs are random",
    ),
    ("C-45", "all", "spcs_get_metrics"): (
        ["RECORD is VARIANT instead of OBJECT", "RECORD_ATTRIBUTES is VARIANT instead of OBJECT"],
        _ONE_TYPE,
    ),
}


@dataclass(frozen=True)
class Case:
    """A recorded answer, with its check, step and source."""

    number: str
    step: str
    provenance: str
    answer: Answer


CASES = [
    Case(file.stem, step, recording.provenance, answer)
    for file in sorted(GOLDEN.glob("*.json"))
    for recording in read(file.stem)
    for step, answer in recording.answers.items()
]


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_golden_files_are_masked(file):
    """Nothing in a golden file has the shape of an address, an id or a token: masking it again changes nothing."""
    answers = [recording["answers"] for recording in json.loads(file.read_text("utf-8"))["recordings"]]

    again = [
        {step: answer.to_json(Mask()) for step, answer in recording.answers.items()} for recording in read(file.stem)
    ]

    assert answers == again


@pytest.fixture
def client(account):
    """Return a client of the provider."""
    client = MLJobClient(account.connect)
    yield client
    client.close()


@pytest.fixture
def replay(server):
    """Return a function that makes the server answer statements with a recorded answer until the end of the test."""
    yield lambda answer, matching: server.faults.add(fault_of(answer, matching))

    server.faults.clear()


@pytest.mark.parametrize(
    ("case", "reader"),
    [
        pytest.param(case, reader, id=f"{case.number}-{case.step}-{index}.{place}")
        for index, case in enumerate(CASES)
        for place, reader in enumerate(readers_of(case.answer))
        if case.answer.rows
    ],
)
def test_provider_reads_rows(case, reader, account, client, replay):
    """The provider reads the values that the recorded rows have."""
    answer = case.answer.unmasked()
    replay(answer, reader.statements)

    value = reader.read(client, account.job("REPLAYED"))

    assert reader.expected(answer) == value


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.number}-{case.step}") for case in CASES if case.answer.refusal is not None]
)
def test_provider_recognises_refusals(case, client, replay):
    """A recorded error reaches the provider with its number, state and text, as an error that it recognises."""
    refusal = case.answer.refusal
    replay(case.answer, "SELECT 'the recorded statement'")

    with pytest.raises(GatewayError) as caught:
        client.connection.rows("SELECT 'the recorded statement'")

    assert type(translate(refusal.as_vendor_error())) is type(caught.value)
    assert refusal.errno in {None, caught.value.errno}
    assert refusal.text in caught.value.message


# What the provider must make of a text or number, by words of the step.
MEANINGS = {
    ("C-03", "describe_missing"): "NotFoundOrNotAuthorizedError",
    ("C-03", "also_describe_2043"): "NotFoundOrNotAuthorizedError",
    ("C-14", "name_taken"): "JobAlreadyExistsError",
    ("C-14", "also_not_visible"): "JobAlreadyExistsError",
    ("C-05", "job_history"): "NoWarehouseError",
    ("C-78", "also_services_limit"): "ServicesLimitError",
}


@pytest.mark.parametrize(("number", "step"), MEANINGS)
def test_meaning_of_refusals(number, step):
    """Each source's form of an error has the same meaning for the provider."""
    refusals = [recording.answers[step].refusal for recording in read(number) if step in recording.answers]

    assert [MEANINGS[number, step]] * len(refusals) == [
        type(translate(refusal.as_vendor_error())).__name__ for refusal in refusals
    ]
    assert refusals


@pytest.mark.parametrize(
    ("number", "step", "failure"),
    [
        ("C-32", "also_documented", Failure.CAPACITY),
        ("C-32", "also_memory", Failure.CAPACITY),
        ("C-32", "also_gpu", Failure.CAPACITY),
        ("C-34", "also_out_of_memory", Failure.OUT_OF_MEMORY),
        ("C-34", "also_bad_image", Failure.IMAGE_PULL),
        ("C-34", "also_image_format", Failure.IMAGE_PULL),
    ],
)
def test_meaning_of_messages(number, step, failure):
    """The recorded message of a container leads to the kind of failure that it describes."""
    (message,) = [
        message
        for recording in read(number)
        if step in recording.answers
        for message in recording.answers[step].cells("message")
    ]

    assert failure is failure_of(message)


def test_emulator_answers_alike(report):
    """The embedded Snowflake has the recorded columns, types, errors and texts, but for the known deviations."""
    compared = [
        (named(case), differences(case.answer, report.trials[case.number].answers[case.step]), known_deviation(case))
        for case in CASES
        if not case.step.startswith(ALSO) and is_asked(case, report)
    ]

    assert [] == [(name, actual) for name, actual, expected in compared if actual != expected]
    assert compared


def is_asked(case, report):
    """Return whether the cheap checks ask for a recorded answer, and still do so with the same statement.

    The way of a check may depend on earlier answers. Documentation has statements of its own.
    """
    answers = report.trials[case.number].answers if case.number in report.trials else {}
    if not case.provenance.startswith("recorded: account"):
        return case.number in report.trials
    return case.step in answers and shape(answers[case.step].statement) == shape(case.answer.statement)


def named(case):
    """Return the check, the step and the source of a case."""
    return case.number, case.step, case.provenance


def known_deviation(case):
    """Return the listed differences of a case; none if it is not listed."""
    for (number, step, page), (expected, _) in DEVIATIONS.items():
        if (number, step) == (case.number, case.step) and page in case.provenance:
            return expected
    return []


def test_steps_of_recordings_exist(report):
    """Each step from a public source is one that its check asks for, or is marked as another form of an answer."""
    public = [case for case in CASES if not case.provenance.startswith("recorded: account")]

    assert [] == [
        named(case)
        for case in public
        if not case.step.startswith(ALSO) and case.step not in report.trials[case.number].answers
    ]


TWO_COLUMNS = Answer(columns=(Column("a", "TEXT"), Column("b", "FIXED")))


@pytest.mark.parametrize(
    ("own", "difference"),
    [
        (Answer(columns=(Column("a", "TEXT"),)), "lacks ['b']"),
        (Answer(columns=(*TWO_COLUMNS.columns, Column("c"))), "['c'] in addition"),
        (Answer(columns=TWO_COLUMNS.columns[::-1]), "the order is ['b', 'a']"),
        (Answer(columns=(Column("a", "TEXT"), Column("b", "TEXT"))), "b is TEXT instead of FIXED"),
        (Answer(refusal=Refusal(1, "XX000", "no")), "error 1 instead of the columns"),
    ],
)
def test_planted_difference_of_columns(own, difference):
    """A missing, additional, moved or otherwise typed column is a difference, and so is an error."""
    (problem,) = differences(TWO_COLUMNS, own)

    assert difference in problem


@pytest.mark.parametrize(
    ("own", "difference"),
    [
        (Refusal(2043, "02000", "Service 'A' does not exist."), "errno 2043 instead of 2003"),
        (Refusal(2003, "42S02", "Service 'A' does not exist."), "sqlstate 42S02 instead of 02000"),
        (Refusal(2003, "02000", "Object 'A' does not exist."), "text "),
    ],
)
def test_planted_difference_of_errors(own, difference):
    """Another number, state or text of an error is a difference; other names in it are not."""
    theirs = Answer(refusal=Refusal(2003, "02000", "Service '<DATABASE>.X' does not exist."))

    (problem,) = differences(theirs, Answer(refusal=own))

    assert difference in problem
    assert [] == differences(theirs, Answer(refusal=Refusal(2003, "02000", "Service 'D.S.J12' does not exist.")))


def test_shape():
    """The shape of a text has no names, numbers and line breaks."""
    assert shape("Job 'A_1' of <ROLE>\nended\t3 times.") == shape('Job "b" of ACCOUNTADMIN ended 12 times')
    assert not re.search(r"\d", shape("12 of 30"))
