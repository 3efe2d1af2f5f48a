"""The contract of worker and container."""

import signal

from airflow_provider_mljobs import report
from airflow_provider_mljobs.launcher import contract


def test_report_agrees():
    """The module ``report`` stands alone, so it repeats the mark, the variables and the launcher's own files."""
    assert (contract.MARK, contract.MLJOBS_STDOUT) == (report.MARK, report.STDOUT)
    assert contract.OWN_FILES == report._RESERVED


def test_a_stopped_container_ends_as_shells_count():
    """The exit code of a stopped container is 128 and the number of SIGTERM."""
    assert 128 + signal.SIGTERM == contract.STOPPED
