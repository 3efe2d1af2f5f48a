"""The privileges of a role, from rows of SHOW GRANTS."""

import pytest

from airflow_provider_mljobs.jobs.grants import Grant, Grants, database_roles, inherited, lacking
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


@pytest.mark.parametrize(
    ("owned", "wanted", "expected"),
    [
        ({"READ"}, ("WRITE", "READ", "MONITOR"), ("WRITE", "MONITOR")),
        ({"OWNERSHIP"}, ("WRITE",), ()),
        ({"MONITOR"}, (), ()),
        (set(), (), ("USAGE",)),
        (set(), ("USAGE",), ("USAGE",)),
    ],
    ids=["some", "an owner has all", "any will do", "none", "the only one"],
)
def test_lacking(owned, wanted, expected):
    """The absent privileges come in the order of the question."""
    assert expected == lacking(owned, wanted)


def test_privileges_from_the_side_of_the_object():
    """Of the grants on an object, those to the role and to the roles that it inherits count."""
    grants = Grants(roles=(Identifier("ML_RUNNER"), Identifier("loaders of ml")))
    rows = [
        {"privilege": "OWNERSHIP", "granted_to": "ROLE", "grantee_name": "ACCOUNTADMIN"},
        {"privilege": "USAGE", "granted_to": "ROLE", "grantee_name": "ML_RUNNER"},
        {"privilege": "MONITOR", "granted_to": "ROLE", "grantee_name": "loaders of ml"},
        {"privilege": "OPERATE", "granted_to": "USER", "grantee_name": "ML_RUNNER"},
    ]

    assert {"USAGE", "MONITOR"} == grants.among(rows)


def test_roles_of_a_role():
    """A role inherits the roles that it may use, not those that it owns."""
    grants = [
        granted("USAGE", "ROLE", "loaders of ml"),
        granted("OWNERSHIP", "ROLE", "INTERN"),
        granted("USAGE", "DATABASE_ROLE", "ML.READER"),
    ]

    assert ([Identifier("loaders of ml")], {"ML.READER"}) == (inherited(grants), database_roles(grants))
