"""The model of roles and grants, without a server."""

import pytest

from airflow_provider_mljobs.emulator.access.grants import Grant, Grants, Principal, Securable, role_object
from airflow_provider_mljobs.emulator.access.rights import Access
from airflow_provider_mljobs.emulator.errors import SnowflakeError

DATABASE = Securable("DATABASE", ("ML",))
SCHEMA = Securable("SCHEMA", ("ML", "PUBLIC"))
STAGE = Securable("STAGE", ("ML", "PUBLIC", "S"))
RUNNER, READER = Principal("ROLE", "RUNNER"), Principal("ROLE", "READER")


class Store:
    """A store that keeps records in memory."""

    def __init__(self):
        self.records = {}

    def objects(self, kind):
        """Iterate over the records of a kind."""
        yield from [(name, record) for (of, name), record in self.records.items() if of == kind]

    def save_object(self, kind, name, record):
        """Store a record."""
        self.records[kind, name] = record

    def delete_object(self, kind, name):
        """Delete a record."""
        self.records.pop((kind, name), None)

    def flush(self):
        """Wait for nothing."""


@pytest.fixture
def access():
    """Return the rights of an account with a database, a schema and a stage of ACCOUNTADMIN."""
    access = Access(Store())
    for on in (DATABASE, SCHEMA, STAGE):
        access.register(on.kind, lambda path, on=on: "ACCOUNTADMIN" if path == on.path else None)
    return access


def give(access, role, *grants):
    """Grant a role privileges, each with its object."""
    for privilege, on in grants:
        access.grants.add(Grant(privilege, on, role, "ACCOUNTADMIN", 1.0))


def refusal(rights, on, *privileges, **options):
    """Return the number and text with which a use is refused."""
    with pytest.raises(SnowflakeError) as caught:
        rights.require(on, *privileges, **options)
    return caught.value.errno, caught.value.message.partition("\n")[2]


def test_a_role_has_what_it_was_granted_and_no_more(access):
    """READ allows reading; for writing the role sees the stage, but lacks the privilege: 3001."""
    give(access, RUNNER, ("USAGE", DATABASE), ("USAGE", SCHEMA), ("READ", STAGE))
    rights = access.rights("U", "RUNNER")
    rights.require(STAGE, "READ")

    assert (3001, "Insufficient privileges to operate on stage 'S'.") == refusal(rights, STAGE, "WRITE")


@pytest.mark.parametrize(
    ("grants", "hidden"),
    [
        ([], "Database 'ML'"),
        ([("USAGE", DATABASE)], "Schema 'ML.PUBLIC'"),
        ([("USAGE", DATABASE), ("USAGE", SCHEMA)], "Stage 'ML.PUBLIC.S'"),
        ([("USAGE", SCHEMA), ("READ", STAGE)], "Database 'ML'"),
        ([("USAGE", DATABASE), ("READ", STAGE)], "Schema 'ML.PUBLIC'"),
    ],
)
def test_what_a_role_does_not_see_does_not_exist_for_it(access, grants, hidden):
    """Without any privilege on an object, or on its schema or database, the outermost of these is missing: 2003."""
    give(access, RUNNER, *grants)
    rights = access.rights("U", "RUNNER")

    assert (2003, f"{hidden} does not exist or not authorized.") == refusal(rights, STAGE, "READ")
    assert not rights.sees(STAGE)


def test_a_role_has_what_the_roles_in_it_have(access):
    """Privileges are inherited upwards, through any number of roles."""
    give(access, READER, ("USAGE", DATABASE), ("USAGE", SCHEMA), ("READ", STAGE))
    access.grants.add(Grant("USAGE", role_object(READER), RUNNER))
    access.grants.add(Grant("USAGE", role_object(RUNNER), Principal("ROLE", "TOP")))

    assert access.rights("U", "TOP").has(STAGE, "READ")
    assert not access.rights("U", "OTHER").has(STAGE, "READ")


def test_an_owner_may_do_everything(access):
    """OWNERSHIP implies every privilege on the object, but needs its schema and database too."""
    access.created(STAGE, "RUNNER")
    rights = access.rights("U", "RUNNER")

    assert rights.has(STAGE, "WRITE")
    assert 2003 == refusal(rights, STAGE, "WRITE")[0]

    give(access, RUNNER, ("MONITOR", DATABASE), ("USAGE", SCHEMA))
    rights.require(STAGE, "WRITE")


def test_an_administrator_sees_but_does_not_own_the_objects_of_others(access):
    """ACCOUNTADMIN sees an object of a role outside its hierarchy, and can't use it before it grants itself that."""
    access.created(STAGE, "RUNNER")
    rights = access.rights("MLJOBS", "ACCOUNTADMIN")

    assert rights.sees(STAGE)
    assert 3001 == refusal(rights, STAGE, "READ")[0]
    assert rights.may_grant(STAGE, "READ")


def test_an_object_that_does_not_exist_is_left_to_its_statement(access):
    """Only the statement knows how to report a missing object."""
    access.rights("U", "RUNNER").require(Securable("STAGE", ("ML", "PUBLIC", "NOPE")), "READ")


def test_secondary_roles_count_except_for_creating(access):
    """Secondary roles add privileges, but an object is created with the primary role's only, as documented."""
    give(access, READER, ("USAGE", DATABASE), ("CREATE STAGE", SCHEMA))
    access.grants.add(Grant("USAGE", role_object(READER), Principal("USER", "U")))
    rights = access.rights("U", "RUNNER", secondary=True)

    assert rights.has(SCHEMA, "CREATE STAGE")
    assert 3001 == refusal(rights, SCHEMA, "CREATE STAGE", creating=True)[0]


def test_future_grants_become_grants(access):
    """A new object gets what was granted on future objects of its kind; those of the schema come before the rest."""
    for on, role in ((DATABASE, READER), (SCHEMA, RUNNER)):
        access.grants.add(Grant("READ", on, role, future="STAGE"))
    access.created(STAGE, "ACCOUNTADMIN")

    assert {"RUNNER"} == {grant.to.name for grant in access.grants.on(STAGE) if grant.privilege == "READ"}


@pytest.mark.parametrize("dropped", [STAGE, SCHEMA, DATABASE])
def test_a_dropped_object_leaves_no_grants(access, dropped):
    """An object that gets the name of a dropped one starts without grants."""
    give(access, RUNNER, ("READ", STAGE))
    access.grants.forget(dropped)

    assert [] == access.grants.on(STAGE)


def test_grants_survive_a_restart():
    """Grants are read back from the store, those of a new account included and those revoked left out."""
    store = Store()
    grants = Grants(store, [Grant("USAGE", DATABASE, READER), Grant("MONITOR", DATABASE, READER)])
    grants.add(Grant("READ", STAGE, RUNNER, "SYSADMIN", 7.5, option=True))
    grants.remove(Grant("MONITOR", DATABASE, READER))
    restored = Grants(store, [Grant("MODIFY", DATABASE, READER)])

    assert [Grant("READ", STAGE, RUNNER, "SYSADMIN", 7.5, option=True)] == restored.on(STAGE)
    assert ["USAGE"] == [grant.privilege for grant in restored.on(DATABASE)]
