"""The provider and the embedded Snowflake, asked for the same specifications."""

import itertools
import json
from operator import attrgetter

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.refusals import check
from airflow_provider_mljobs.jobs.spec.specification import parse
from tests.specifications import corpus

DOCUMENTS = corpus()
_INVALID_SPEC = 395018
_SETUP = """
CREATE DATABASE db;
CREATE SCHEMA db.s;
CREATE STAGE data;
CREATE SECRET login TYPE = PASSWORD USERNAME = 'ann' PASSWORD = 'word';
CREATE SECRET words TYPE = GENERIC_STRING SECRET_STRING = 'word';
CREATE COMPUTE POOL waiting MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = GPU_NV_L
    INITIALLY_SUSPENDED = TRUE AUTO_RESUME = FALSE;
"""


@pytest.fixture(scope="module")
def submit():
    """Submit a specification to a pool that is suspended; return the text of the refusal, if there is one."""
    from snowflake import connector

    from airflow_provider_mljobs.emulator import serve

    names = (f"JOB_{number}" for number in itertools.count())

    def submit(text):
        try:
            connection.cursor().execute(
                f"EXECUTE JOB SERVICE IN COMPUTE POOL waiting NAME = {next(names)} ASYNC = TRUE "
                f"FROM SPECIFICATION $${text}$$"
            )
        except connector.Error as error:
            # Other errors are about objects that a valid specification names.
            return str(error.msg) if error.errno == _INVALID_SPEC else ""
        return ""

    with serve() as server, connector.connect(**server.connection_kwargs) as connection:
        connection.execute_string(_SETUP)
        yield submit


def refusal(text):
    """Return the text of the provider's refusal, if there is one."""
    try:
        check(parse(text))
    except InvalidJobSpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=attrgetter("id"))
def test_provider(document):
    """The provider answers each document as the corpus says."""
    answer = refusal(document.text)

    assert bool(document.provider) == bool(answer), answer
    assert document.provider in answer


@pytest.mark.parametrize("document", DOCUMENTS, ids=attrgetter("id"))
def test_snowflake(document, submit):
    """The embedded Snowflake answers each document as the corpus says."""
    answer = submit(document.text)

    assert bool(document.snowflake) == bool(answer), answer
    assert document.snowflake in answer


@pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if not each.provider and not each.because], ids=attrgetter("id")
)
def test_documents_arrive_as_the_provider_writes_them(document, submit):
    """A document that the provider accepts is accepted as it is sent, in JSON."""
    assert "" == submit(json.dumps(parse(document.text)))


def test_differences_have_a_reason():
    """Where one answers otherwise than the other, the corpus says why; elsewhere both answer alike."""
    assert [] == [
        document.text
        for document in DOCUMENTS
        if (bool(document.provider) != bool(document.snowflake)) != bool(document.because)
    ]


def keys(model):
    """Yield the keys of a model and of the models in it."""
    from airflow_provider_mljobs.jobs.spec.refusals import model_in

    for field in model.model_fields.values():
        yield field.alias
        if (inner := model_in(field.annotation)) is not None:
            yield from keys(inner)


def test_every_key_is_in_the_corpus():
    """Each key that the provider accepts stands in an accepted document."""
    from airflow_provider_mljobs.jobs.spec.schema import Document

    accepted = "\n".join(document.text for document in DOCUMENTS if not document.provider)

    assert [] == [key for key in keys(Document) if f"{key}:" not in accepted]
