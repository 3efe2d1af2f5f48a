"""Which columns the model sees, and which rows it learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snowflake.snowpark import DataFrame

FEATURES = ["ANNUAL_INCOME", "LOAN_AMOUNT", "CREDIT_SCORE", "AGE"]
TARGET = "DEFAULTED"


def training_rows(applications: DataFrame) -> DataFrame:
    """Leave every fifth application to the evaluation."""
    return applications.filter("MOD(APPLICATION_ID, 5) <> 0").select("APPLICATION_ID", *FEATURES, TARGET)
