"""The privileges of a role, from rows of SHOW GRANTS."""

import pytest

from airflow_provider_mljobs.jobs.grants import Grant, Grants, database_roles, inherited
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName

DATABASE, SCHEMA = Identifier("ML"), Namespace(Identifier("ML"), Identifier("my jobs"))
STAGE = QualifiedName(Identifier("ML"), Identifier("my jobs"), Identifier("S"))


def granted(privilege, kind, name):
    """Read the row of one grant."""
    return Grant.of_row({"privilege": privilege, "granted_on": kind, "name": name})


@pytest.mark.parametrize(
    ("kind", "name", "written"),
    [
        ("COMPUTE POOL", Identifier("P"), "P"),
        ("DATABASE", Identifier("my db"), '"my db"'),
        ("DATABASE", Identifier("my db"), "my db"),
        ("SCHEMA", SCHEMA, 'ML."my jobs"'),
        ("SCHEMA", SCHEMA, "ML.my jobs"),
        ("STAGE", STAGE, 'ML."my jobs".S'),
        ("STAGE", STAGE, '"ML"."my jobs"."S"'),
    ],
)
def test_an_object_has_one_name_in_several_forms(kind, name, written):
    """A listing may write a name with quotes where they are needed, always, or never."""
    grants = Grants(frozenset({granted("USAGE", kind.replace(" ", "_"), written)}))

    assert {"USAGE"} == grants.privileges(kind, name)


def test_lacks():
    """The absent privileges come in the order of the question."""
    grants = Grants(frozenset({granted("READ", "STAGE", str(STAGE)), granted("WRITE", "STAGE", "ML.PUBLIC.OTHER")}))

    assert ("WRITE", "MONITOR") == grants.lacks("STAGE", STAGE, ("WRITE", "READ", "MONITOR"))


def test_an_owner_has_all_privileges():
    """OWNERSHIP includes every privilege on the object, and none on its parents."""
    grants = Grants(frozenset({granted("OWNERSHIP", "SCHEMA", str(SCHEMA))}))

    assert () == grants.lacks("SCHEMA", SCHEMA, ("CREATE SERVICE",))
    assert ("USAGE",) == grants.lacks("DATABASE", DATABASE, ("USAGE",))


def test_roles_of_a_role():
    """A role inherits the roles that it may use, not those that it owns."""
    grants = [
        granted("USAGE", "ROLE", "loaders of ml"),
        granted("OWNERSHIP", "ROLE", "INTERN"),
        granted("USAGE", "DATABASE_ROLE", "ML.READER"),
    ]

    assert ([Identifier("loaders of ml")], {"ML.READER"}) == (inherited(grants), database_roles(grants))
