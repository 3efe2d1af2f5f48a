"""The grant that a refusal of Snowflake's asks for."""

import pytest

from airflow_provider_mljobs.gateway.refusals import missing_grant

NAMES = ("ML.PUBLIC", "ML.PUBLIC.PAYLOADS", 'ML."low"."st"', "ML_POOL")


@pytest.mark.parametrize(
    ("refusal", "grant"),
    [
        ("Database 'ML' does not exist or not authorized.", "USAGE ON DATABASE ML"),
        ("Schema 'ML.PUBLIC' does not exist or not authorized.", "USAGE ON SCHEMA ML.PUBLIC"),
        ("Insufficient privileges to operate on schema 'PUBLIC'.", "CREATE SERVICE ON SCHEMA ML.PUBLIC"),
        ("Compute Pool 'ML_POOL' does not exist or not authorized.", "USAGE ON COMPUTE POOL ML_POOL"),
        ("Insufficient privileges to operate on compute pool 'ML_POOL'", "USAGE ON COMPUTE POOL ML_POOL"),
        ("Insufficient privileges to operate on stage 'PAYLOADS'", "READ, WRITE ON STAGE ML.PUBLIC.PAYLOADS"),
        ("Stage 'ML.low.st' does not exist or not authorized.", 'READ, WRITE ON STAGE ML."low"."st"'),
        ("Integration 'PYPI' does not exist or not authorized.", "USAGE ON INTEGRATION PYPI"),
        ("Secret 'ML.PUBLIC.KEY' does not exist or not authorized.", "READ ON SECRET ML.PUBLIC.KEY"),
        ("Image repository 'A.B.C' does not exist or not authorized.", "READ ON IMAGE REPOSITORY A.B.C"),
        ("Insufficient privileges to operate on account 'XY12345'.", "BIND SERVICE ENDPOINT ON ACCOUNT"),
        ("Service 'ML.PUBLIC.J' does not exist or not authorized.", "MONITOR ON SERVICE ML.PUBLIC.J"),
        ("Insufficient privileges to operate on service 'J'.", "OPERATE ON SERVICE J"),
    ],
)
def test_a_refusal_names_the_missing_grant(refusal, grant):
    """The object and the way in which it is refused give the privilege; its full name comes from the statement."""
    assert f"GRANT {grant} TO ROLE R" == missing_grant(f"SQL compilation error:\n{refusal}", "R", NAMES)


@pytest.mark.parametrize(
    "refusal", ["Object 'T' does not exist or not authorized.", "Insufficient privileges", "syntax error", ""]
)
def test_no_advice_without_evidence(refusal):
    """A refusal that names no object which the provider needs gets no GRANT."""
    assert missing_grant(refusal, "R", NAMES) is None
