"""Checks of logs and metrics: what a node keeps, what the event table gets, and how late."""

from datetime import UTC, datetime

from airflow_provider_mljobs.exceptions import GatewayError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.log_store import event_table
from airflow_provider_mljobs.gateway.usage import UNITS
from tests.account.beliefs import either, has_columns, has_rows, is_, is_at_most, is_refused, says, succeeds
from tests.account.checks import JOBS, SLOW, check
from tests.account.payloads import after_seventy_minutes, one

_STAMP = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d+Z "
_LOG_LIMIT = 100 * 1024
_LAG_SECONDS = 600
_LONG_AGO = "1970-01-01T00:00:00Z"


@check("C-40", JOBS, node_minutes=1)
def log_forms(account):
    """The log of a running container comes by SELECT with three arguments, and with stamps by seven."""
    job = account.start("C40", "echo first; echo second; sleep 600")
    account.wait(job, "RUNNING")
    provider = statements.get_service_logs(job, 0, "main")
    account.repeat(provider, lambda answer: "second" in str(answer.value), account.settings.fit_seconds)
    arguments = f"'{job}', 0, 'main'"
    account.ask("three", provider, says("^first\nsecond"))
    account.ask(
        "seven",
        statements.get_stamped_service_logs(job, 0, "main", ""),
        either(says(f"^{_STAMP}first"), is_refused(GatewayError)),
    )
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    account.ask(
        "since", statements.get_stamped_service_logs(job, 0, "main", since), either(succeeds, is_refused(GatewayError))
    )
    for step, statement in {
        "call": f"CALL SYSTEM$GET_SERVICE_LOGS({arguments})",
        "four": f"SELECT SYSTEM$GET_SERVICE_LOGS({arguments}, 1)",
        "five": f"SELECT SYSTEM$GET_SERVICE_LOGS({arguments}, 1, FALSE)",
        "quoted": f"SELECT SYSTEM$GET_SERVICE_LOGS('{job}', '0', 'main')",
    }.items():
        account.ask(step, statement, succeeds)
    account.ask("no_instance", statements.get_service_logs(job, 7, "main"), is_refused(GatewayError))
    account.ask("no_container", statements.get_service_logs(job, 0, "nobody"), is_refused(GatewayError))
    account.ask("drop", statements.drop_service(job), succeeds)


@check("C-41", JOBS, node_minutes=1)
def log_limit(account):
    """Of a long log a node returns the last 100 KB."""
    line = "$i" + "-0123456789" * 4
    script = f"i=0; while [ $i -lt 6000 ]; do echo {line}; i=$((i+1)); done; echo end; sleep 600"
    job = account.start("C41", script)
    account.wait(job, "RUNNING")
    provider = statements.get_service_logs(job, 0, "main")
    answer, _ = account.repeat(provider, lambda answer: "end" in str(answer.value), account.settings.fit_seconds)
    account.note("bytes", len(str(answer.value).encode()), is_at_most(_LOG_LIMIT))
    account.note("last_line", str(answer.value).strip().splitlines()[-1], is_("end"))
    account.note("first_line", str(answer.value).splitlines()[0][:60])
    account.ask("drop", statements.drop_service(job), succeeds)


@check("C-42", JOBS, node_minutes=2)
def log_after_the_end(account):
    """The log of an ended container is there, or is refused in a way that the provider takes for a log that is gone."""
    job = account.start("C42", "echo done")
    account.wait(job)
    provider = statements.get_service_logs(job, 0, "main")
    account.ask("at_once", provider, either(says("done"), is_refused(GatewayError)))
    gone, seconds = account.repeat(
        provider, lambda answer: answer.refusal is not None, account.settings.fit_seconds * 3
    )
    account.note("seconds", round(seconds, 1))
    account.note("gone", gone.refusal is not None)
    account.ask("later", provider, either(says("done"), is_refused(GatewayError)))


@check("C-47", JOBS, node_minutes=1)
def result_file(account):
    """The result of a job is on the stage within two minutes of its end."""
    account.note("value", account.run("C47", one), is_(1))
    pattern = r".*/C47/output/mljob_result.*"
    answer, seconds = account.repeat(
        statements.list_files(account.stage, pattern), lambda answer: answer.count > 0, 120
    )
    account.note("files", sorted(name.rsplit("/", 1)[-1] for name in answer.cells("name")))
    account.note("seconds", round(seconds, 1), is_at_most(120))


@check("C-27b", SLOW, node_minutes=75, only_accounts="it takes 70 minutes")
def long_session(account):
    """A session of a job, and its token, work after 70 minutes."""
    account.note("values", account.run("C27_LONG", after_seventy_minutes), says(r"\[1, 2\]"))


@check("C-35", SLOW, node_minutes=2)
def events(account):
    """The platform's events of a job name its containers and their changes, once LOG_EVENT_LEVEL asks for them."""
    account.ask("level", f"ALTER SCHEMA {account.schema} SET LOG_EVENT_LEVEL = INFO", succeeds)
    job = account.start("C35", "exit 3")
    account.wait(job)
    statement = f"SELECT * FROM TABLE({job}!SPCS_GET_EVENTS(START_TIME => TO_TIMESTAMP_LTZ('{_ago()}')))"
    _, seconds = account.repeat(statement, lambda answer: answer.count > 0 or answer.refusal is not None, _lag(account))
    account.note("seconds", round(seconds, 1))
    account.ask("events", statement, has_columns("TIMESTAMP", "CONTAINER_NAME", "INSTANCE_ID"), has_rows())
    provider = statements.spcs_get_events(job, start=_ago(), most=10)
    account.ask("provider", provider, has_columns("INSTANCE_ID", "CONTAINER_NAME", "STATUS", "MESSAGE"), has_rows())


@check("C-43", SLOW, node_minutes=2)
def stored_logs(account):
    """SPCS_GET_LOGS has each line of a log once, in order, whole and decoded, also from 1970 on."""
    usual, odd = r"printf 'one\ntwo\r\ncafé\n'", r"printf '\377\376 odd\n'"
    lines = rf"{usual}; {odd}; head -c 20000 /dev/zero | tr '\0' x; echo; printf 'no newline'"
    job = account.start("C43", lines)
    account.wait(job)
    statement = statements.spcs_get_logs(job, 0, "main", start=_LONG_AGO)
    answer, seconds = account.repeat(statement, lambda answer: "newline" in str(answer.rows), _lag(account))
    account.note("seconds", round(seconds, 1))
    account.ask("logs", statement, has_columns("TIMESTAMP", "LOG"), has_rows())
    account.note("lines", [str(line).strip() for line in answer.cells("log")][:3], says(r"one.*two.*café"))
    account.note("lengths", [len(str(line)) for line in answer.cells("log")])
    account.ask("all", f"SELECT * FROM TABLE({job}!SPCS_GET_LOGS())", has_columns("INSTANCE_ID", "CONTAINER_NAME"))
    most = statements.Extent(lines=2, characters=10_000, line_characters=100)
    account.ask(
        "end",
        statements.spcs_get_logs(job, 0, "main", start=_ago(), most=most),
        has_columns("TIMESTAMP", "LINE", "LINES"),
        has_rows(2),
    )


@check("C-44", SLOW, node_minutes=1)
def event_table_rows(account):
    """The account's event table has the lines of a job, with the names that the provider asks for."""
    job = account.start("C44", "echo hello from the table")
    account.wait(job)
    parameter = account.ask("parameter", statements.show_event_table(), has_columns("key", "value"))
    table = event_table(parameter.records)
    if table is None:
        return
    most = statements.Extent(lines=10, characters=10_000, line_characters=100)
    statement = statements.event_table_logs(table, job, 0, "main", start=_ago(), end=None, most=most)
    answer, seconds = account.repeat(
        statement, lambda answer: answer.count > 0 or answer.refusal is not None, _lag(account)
    )
    account.note("seconds", round(seconds, 1))
    account.ask("rows", statement, either(says("hello from the table"), is_refused(GatewayError)))
    view = str(table).removesuffix("EVENTS") + "EVENTS_VIEW"
    account.ask(
        "view",
        f"SELECT COUNT(*) AS ROWS_OF_JOB FROM {view} WHERE RESOURCE_ATTRIBUTES['snow.service.name'] = 'C44'",
        either(succeeds, is_refused(GatewayError)),
    )
    account.note("found", answer.count > 0)


@check("C-45", SLOW, node_minutes=3)
def metrics(account):
    """The platform measures the containers of a job under the names and units that the provider charts."""
    groups = {
        "platformMonitor": {"metricConfig": {"groups": ["system", "system_limits", "status", "network", "storage"]}}
    }
    account.ask("start", account.start_statement("C45", account.container("sleep 90"), spec=groups), succeeds)
    job = account.job("C45")
    account.wait(job, "RUNNING")
    provider = statements.spcs_get_metrics(job, UNITS, start=_ago(), points=10, most=100)
    _, seconds = account.repeat(provider, lambda answer: answer.count > 0 or answer.refusal is not None, _lag(account))
    account.note("seconds", round(seconds, 1))
    account.ask(
        "provider", provider, has_columns("INSTANCE", "CONTAINER", "METRIC", "SECONDS", "MEAN", "PEAK"), has_rows()
    )
    table = f"TABLE({job}!SPCS_GET_METRICS(START_TIME => TO_TIMESTAMP_LTZ('{_ago()}')))"
    names = f"SELECT DISTINCT METRIC_NAME, UNIT, CONTAINER_NAME FROM {table}"
    account.ask("all", f"SELECT * FROM {table} LIMIT 1", has_columns("METRIC_NAME", "VALUE", "TIMESTAMP"))
    account.ask("names", names, says(r"container\.cpu\.usage"))
    account.ask("drop", statements.drop_service(job), succeeds)


@check("C-46", SLOW, node_minutes=1)
def logs_of_a_dropped_job(account):
    """The functions of a dropped job are refused, and the event table still has its lines."""
    job = account.start("C46", "echo dropped")
    account.wait(job)
    account.ask("drop", statements.drop_service(job), succeeds)
    account.ask(
        "logs",
        statements.spcs_get_logs(job, 0, "main", start=_ago()),
        either(is_refused(GatewayError), has_rows(least=0)),
    )
    account.ask(
        "metrics",
        statements.spcs_get_metrics(job, UNITS, start=_ago(), points=10, most=100),
        either(is_refused(GatewayError), has_rows(least=0)),
    )


def _ago():
    """Return the beginning of today in UTC, which is before the suite's jobs."""
    return datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")


def _lag(account):
    return account.settings.fit_seconds * 10
