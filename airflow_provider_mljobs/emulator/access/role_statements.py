"""Roles and users: CREATE, ALTER, DROP, USE and SHOW."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.needs import creates, owned
from airflow_provider_mljobs.emulator.access.rights import SYSTEM_ROLES, account_role
from airflow_provider_mljobs.emulator.access.users import Role, User
from airflow_provider_mljobs.emulator.errors import (
    already_exists,
    does_not_exist,
    insufficient_privileges,
    nothing_to_use,
)
from airflow_provider_mljobs.emulator.listing import like, parse_listing
from airflow_provider_mljobs.emulator.options import Options, flag, parse_options, texts
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.pool import moment

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.access.rights import Access
    from airflow_provider_mljobs.emulator.access.users import Users
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_STATUS = (Column("status"),)
_DONE = "Statement executed successfully."
_SYSTEM = {role.name for role in SYSTEM_ROLES}
_ROLES = (
    Column("created_on", "timestamp_ltz"),
    *(Column(name) for name in ("name", "is_default", "is_current", "is_inherited")),
    *(
        Column(name, "fixed", precision=38, scale=0)
        for name in ("assigned_to_users", "granted_to_roles", "granted_roles")
    ),
    *(Column(name) for name in ("owner", "comment")),
)
_USERS = (
    Column("name"),
    Column("created_on", "timestamp_ltz"),
    *(
        Column(name)
        for name in (
            "login_name", "display_name", "disabled", "default_warehouse", "default_namespace", "default_role",
            "default_secondary_roles", "owner", "comment", "type",
        )
    ),
)  # fmt: skip
_PROPERTIES = {
    "PASSWORD", "LOGIN_NAME", "DISPLAY_NAME", "FIRST_NAME", "LAST_NAME", "EMAIL", "MUST_CHANGE_PASSWORD", "DISABLED",
    "DEFAULT_ROLE", "DEFAULT_SECONDARY_ROLES", "DEFAULT_WAREHOUSE", "DEFAULT_NAMESPACE", "COMMENT", "TYPE",
    "RSA_PUBLIC_KEY", "RSA_PUBLIC_KEY_2",
}  # fmt: skip
_TEXTS = {
    "DEFAULT_ROLE": "default_role", "DEFAULT_WAREHOUSE": "default_warehouse",
    "DEFAULT_NAMESPACE": "default_namespace", "COMMENT": "comment", "TYPE": "type",
    "RSA_PUBLIC_KEY": "public_key",
}  # fmt: skip


class RoleStatements:
    """The statements about roles and users.

    :param access: the account's grants.
    :param users: its users and roles.
    :param catalog: its databases, for the clauses of SHOW.
    """

    def __init__(self, access: Access, users: Users, catalog: Catalog) -> None:
        self._access = access
        self._users = users
        self._catalog = catalog

    @property
    def extension(self) -> Extension:
        """The statements."""
        user = "USER [ IF NOT EXISTS ] <name> [ PASSWORD = '…' ] [ DEFAULT_ROLE = <role> ] [ <property> = <value> … ]"
        return Extension(
            statements=(
                *(
                    Statement(("CREATE", *replacing, kind), handler, _STATUS, syntax, creates(kind, *replacing))
                    for replacing in ((), ("OR", "REPLACE"))
                    for kind, handler, syntax in (
                        (
                            "ROLE",
                            self.create_role,
                            "CREATE [ OR REPLACE ] ROLE [ IF NOT EXISTS ] <name> [ COMMENT = '…' ]",
                        ),
                        ("USER", self.create_user, f"CREATE [ OR REPLACE ] {user}"),
                    )
                ),
                Statement(
                    ("ALTER", "USER"), self.alter_user, _STATUS, "ALTER USER <name> { SET | UNSET } …", owned("USER")
                ),
                Statement(("DROP", "ROLE"), self.drop_role, _STATUS, "DROP ROLE [ IF EXISTS ] <name>", owned("ROLE")),
                Statement(("DROP", "USER"), self.drop_user, _STATUS, "DROP USER [ IF EXISTS ] <name>", owned("USER")),
                Statement(("SHOW", "ROLES"), self.show_roles, _ROLES, "SHOW ROLES [ LIKE '…' ]"),
                Statement(("SHOW", "USERS"), self.show_users, _USERS, "SHOW USERS [ LIKE '…' ]"),
                Statement(("USE", "ROLE"), self.use_role, _STATUS, "USE ROLE <name>"),
                Statement(("USE", "SECONDARY", "ROLES"), _use_secondary, _STATUS, "USE SECONDARY ROLES { ALL | NONE }"),
            )
        )

    def create_role(self, context: Context, parser: Parser) -> Result:
        """Run ``CREATE ROLE``; the role isn't granted to the user who creates it."""
        or_replace = parser.tokens[1].keyword == "OR"
        if_not_exists = parser.accept("IF", "NOT", "EXISTS")
        name = parser.qualified_name().name
        options = parse_options(parser, {"COMMENT"}, "ROLE")
        parser.expect_end()
        if name in self._users.roles and (not or_replace or name in _SYSTEM):
            return _existing(name, if_not_exists=if_not_exists)
        owner = context.session.role
        if name in self._users.roles:
            self._users.drop_role(name)
        self._users.save_role(Role(name=name, owner=owner, comment=str(options.get("COMMENT", ""))))
        self._access.created(Securable("ROLE", (name,)), owner)
        self._access.grants.flush()
        return Result.status(f"Role {name} successfully created.")

    def drop_role(self, context: Context, parser: Parser) -> Result:
        """Run ``DROP ROLE``; its objects go to the role that drops it, as documented."""
        if_exists = parser.accept("IF", "EXISTS")
        name = parser.qualified_name().name
        parser.expect_end()
        if name in _SYSTEM:
            raise insufficient_privileges("role", name)
        if name not in self._users.roles:
            return _absent("Role", name, if_exists=if_exists)
        self._access.inherit(account_role(name), context.session.role)
        self._users.drop_role(name)
        self._access.grants.flush()
        return Result.status(f"{name} successfully dropped.")

    def use_role(self, context: Context, parser: Parser) -> Result:
        """Run ``USE ROLE``: the role must have been granted to the user, or to another role of the user."""
        name = parser.qualified_name().name
        parser.expect_end()
        if name not in self._users.roles:
            raise nothing_to_use()
        context.session.rights.use(name)
        return Result.status(_DONE)

    def show_roles(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW ROLES``: the roles that the session sees."""
        listing = parse_listing(context, parser, self._catalog, levels=0)
        rights, roles = context.session.rights, self._users.roles
        visible = roles if rights.sees_all else {role.name for role in rights.available} & roles.keys()
        default = self._users.all[rights.user].default_role if rights.user in self._users.all else rights.role
        inherited = {role.name for role in rights.primary}
        rows = []
        for name in listing.names(visible):
            role = roles[name]
            holders = [grant.to.kind for grant in self._access.grants.on(Securable("ROLE", (name,)))
                       if grant.privilege == "USAGE"]  # fmt: skip
            rows.append((
                moment(role.created_on or None), name, _flag(name == default), _flag(name == rights.role),
                _flag(name in inherited and name != rights.role), holders.count("USER"), holders.count("ROLE"),
                len(self._access.grants.granted_roles(account_role(name))), self._owner(Securable("ROLE", (name,))),
                role.comment,
            ))  # fmt: skip
        return Result(_ROLES, rows, statement="show")

    def _owner(self, on: Securable) -> str:
        owner = self._access.grants.owner(on)
        return "" if owner is None else owner.name

    def create_user(self, context: Context, parser: Parser) -> Result:
        """Run ``CREATE USER``."""
        or_replace = parser.tokens[1].keyword == "OR"
        if_not_exists = parser.accept("IF", "NOT", "EXISTS")
        name = parser.qualified_name().name
        options = parse_options(parser, _PROPERTIES, "USER")
        parser.expect_end()
        if name in self._users.all and not or_replace:
            return _existing(name, if_not_exists=if_not_exists)
        owner = context.session.role
        if name in self._users.all:
            self._users.drop_user(name)
        self._users.save_user(_changed(User(name=name, owner=owner), options))
        self._access.created(Securable("USER", (name,)), owner)
        self._access.grants.flush()
        return Result.status(f"User {name} successfully created.")

    def alter_user(self, _: Context, parser: Parser) -> Result:
        """Run ``ALTER USER … SET | UNSET``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = parser.qualified_name().name
        if name not in self._users.all:
            return _absent("User", name, if_exists=if_exists)
        user = self._users.all[name]
        if parser.accept("UNSET"):
            defaults = User(name=name)
            while not parser.at_end():
                field = (_TEXTS | {"DEFAULT_SECONDARY_ROLES": "secondary"}).get(parser.identifier())
                user = replace(user, **({field: getattr(defaults, field)} if field else {}))
                parser.accept(",")
        else:
            parser.expect("SET")
            user = _changed(user, parse_options(parser, _PROPERTIES, "USER"))
        parser.expect_end()
        self._users.save_user(user)
        self._access.grants.flush()
        return Result.status(_DONE)

    def drop_user(self, _: Context, parser: Parser) -> Result:
        """Run ``DROP USER``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = parser.qualified_name().name
        parser.expect_end()
        if name not in self._users.all:
            return _absent("User", name, if_exists=if_exists)
        self._users.drop_user(name)
        self._access.grants.flush()
        return Result.status(f"{name} successfully dropped.")

    def show_users(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW USERS``: the users that the role owns, and the session's own."""
        wanted = like(parser.string() if parser.accept("LIKE") else "%")
        parser.expect_end()
        rights = context.session.rights
        rows = [
            (
                user.name, moment(user.created_on or None), user.name, user.name, str(user.disabled).lower(),
                user.default_warehouse, user.default_namespace, user.default_role,
                '["ALL"]' if user.secondary else "[]", self._owner(Securable("USER", (user.name,))), user.comment,
                user.type,
            )
            for user in self._users.all.values()
            if wanted.fullmatch(user.name)
            and (user.name == rights.user or rights.sees(Securable("USER", (user.name,))))
        ]  # fmt: skip
        return Result(_USERS, rows, statement="show")


def _changed(user: User, options: Options) -> User:
    values: dict[str, Any] = {field: str(options[key]) for key, field in _TEXTS.items() if key in options}
    if "DEFAULT_SECONDARY_ROLES" in options:
        values["secondary"] = "ALL" in [text.upper() for text in texts(options["DEFAULT_SECONDARY_ROLES"])]
    if "DISABLED" in options:
        values["disabled"] = flag(options, "DISABLED", default=False)
    changed = replace(user, **values)
    return changed.with_password(str(options["PASSWORD"])) if "PASSWORD" in options else changed


def _use_secondary(context: Context, parser: Parser) -> Result:
    every = parser.accept("ALL")
    if not every:
        parser.expect("NONE")
    parser.expect_end()
    context.session.rights.secondary = every
    return Result.status(_DONE)


def _existing(name: str, *, if_not_exists: bool) -> Result:
    if not if_not_exists:
        raise already_exists(name)
    return Result.status(f"{name} already exists, statement succeeded.")


def _absent(kind: str, name: str, *, if_exists: bool) -> Result:
    if not if_exists:
        raise does_not_exist(kind, name)
    return Result.status(f"Drop statement executed successfully ({name} already dropped).")


def _flag(value: object) -> str:
    return "Y" if value else "N"
