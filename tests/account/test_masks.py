"""Masks of recordings: no name, address, id or token of an account passes them; everything else stays readable."""

import json

import pytest

from tests.account.answers import Answer, Column, Refusal
from tests.account.masks import Mask

MASK = Mask.of(
    account=["AB12345", "MY_ACCOUNT", "ACME-MY_ACCOUNT"],
    organization="ACME",
    user=["JANE", "jane@acme.com"],
    role=["ML_ROLE", "ML_ROLE_ADMIN", "SYSADMIN", None],
    database="LAB",
    pool="GPU_POOL",
)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Object 'LAB.S.J' does not exist", "Object '<DATABASE>.S.J' does not exist"),
        ("role ml_role_admin, role ml_role", "role <ROLE>, role <ROLE>"),
        ('"LAB"."PUBLIC"', '"<DATABASE>"."PUBLIC"'),
        ("LABEL, SLAB and LAB2 are other words", "LABEL, SLAB and LAB2 are other words"),
        ("GPU_POOL of <POOL>", "<POOL> of <POOL>"),
        ("SYSADMIN, PUBLIC and SNOWFLAKE", "SYSADMIN, PUBLIC and SNOWFLAKE"),
        ("ab12345.eu-west-1.aws", "<ACCOUNT>.eu-west-1.aws"),
        ("mqbx-acme-my-account.snowflakecomputing.app", "<HOST>.snowflakecomputing.app"),
        ("abc-xyz.snowflake.app", "<HOST>.snowflake.app"),
        ("https://xy1.privatelink.snowflakecomputing.com/a", "https://<HOST>.snowflakecomputing.com/a"),
        ("xy1.registry.snowflakecomputing.com", "<HOST>.snowflakecomputing.com"),
        ("mail to joe.doe+x@example.org, please", "mail to <EMAIL>, please"),
        ("Jane of acme-my_account", "<USER> of <ACCOUNT>"),
        ("query 01b2c3d4-0000-1a2b-0000-000100020003 failed", "query <ID> failed"),
        ("node 10.16.2.3 of version 10.25.102", "node <IP> of version 10.25.102"),
        ("ver:1-hint:92019681909-ETMsDgAAAZ/x+1==", "<TOKEN>"),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "<TOKEN>"),
        ("key AKIAIOSFODNN7EXAMPLE", "key <TOKEN>"),
        ("https://b.s3.us-west-2.amazonaws.com/f?X-Amz-Signature=0a1b&x=1", "https://<BUCKET>.s3.us-west-2.amazonaws.com/f?X-Amz-Signature=<TOKEN>&x=1"),
        ("https://acc.blob.core.windows.net/c?sv=2025-01-05&sig=aGk%3D", "https://<BUCKET>.blob.core.windows.net/c?sv=<TOKEN>&sig=<TOKEN>"),
        ("ETMsDgAAAZ9yWm8Xa1b2C3d4E5f6G7h8I9j0KLMN", "<TOKEN>"),
        ("sha256:" + "0a1b2c3d" * 8, "sha256:" + "0a1b2c3d" * 8),
        ("MLJOB_TRAIN_1A2B3C4D5E6F_0_1_AND_MORE_OF_ITS_NAME", "MLJOB_TRAIN_1A2B3C4D5E6F_0_1_AND_MORE_OF_ITS_NAME"),
        (
            "/snowflake/images/snowflake_images/container_runtime/cpu_x86_64:2.9.0-py311",
            "/snowflake/images/snowflake_images/container_runtime/cpu_x86_64:2.9.0-py311",
        ),
    ],
)  # fmt: skip
def test_text(text, masked):
    """Names and private shapes are replaced by what they are; words that only contain a name stay."""
    assert masked == MASK(text)


def test_text_twice():
    """A masked text stays as it is when it is masked again."""
    once = MASK("GPU_POOL and role ML_ROLE of jane@acme.com at xy1.snowflakecomputing.com")

    assert once == MASK(once)


@pytest.mark.parametrize(
    ("column", "text", "masked"),
    [
        ("owner", "SOMEONES_ROLE", "<OWNER>"),
        ("owner", "ML_ROLE", "<ROLE>"),
        ("owner", "ACCOUNTADMIN", "ACCOUNTADMIN"),
        ("owner", "SYSTEM$MANAGED", "SYSTEM$MANAGED"),
        ("OWNER", "", ""),
        ("ip_address", "10.0.0.1", "<IP>"),
        ("status", "DONE", "DONE"),
    ],
)
def test_cells_of_other_people(column, text, masked):
    """Columns that name other people's objects are masked whole, but for Snowflake's own names."""
    assert masked == MASK.cell(column, text)


def test_answer():
    """A recorded answer is masked in its statement, its cells, its objects and its error."""
    answer = Answer(
        statement="SHOW JOB SERVICES IN SCHEMA LAB.S",
        columns=(Column("name", "TEXT"), Column("owner", "TEXT"), Column("spec", "OBJECT")),
        rows=(("J", "THEIRS", {"host": "xy1.snowflakecomputing.com"}),),
        count=1,
        refusal=Refusal(2003, "02000", "Database 'LAB' does not exist or not authorized."),
    )

    assert {
        "statement": "SHOW JOB SERVICES IN SCHEMA <DATABASE>.S",
        "columns": [["name", "TEXT"], ["owner", "TEXT"], ["spec", "OBJECT"]],
        "rows": [["J", "<OWNER>", '{"host": "<HOST>.snowflakecomputing.com"}']],
        "count": 1,
        "seconds": None,
        "error": {
            "errno": 2003,
            "sqlstate": "02000",
            "text": "Database '<DATABASE>' does not exist or not authorized.",
        },
    } == answer.to_json(MASK)


def test_leaks():
    """The last check before writing reports the kinds of names that are still in a document, but no placeholders."""
    assert ["<DATABASE>", "<POOL>"] == MASK.leaks({"rows": [["lab", "<ROLE>"]], "text": "gpu_pool"})
    assert [] == MASK.leaks(json.loads(json.dumps({"rows": [[MASK("lab of jane"), 1, None]]})))
