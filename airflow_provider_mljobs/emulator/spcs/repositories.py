"""Image repositories. They hold no images: jobs run the software of this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.access.needs import of
from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.account_objects import Kind, Objects
from airflow_provider_mljobs.emulator.spcs.pool import moment
from airflow_provider_mljobs.emulator.spcs.specification import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context

_ENCRYPTION = "SNOWFLAKE_FULL"
_IMAGES = tuple(Column(name) for name in ("created_on", "image_name", "tags", "digest", "image_path"))
_BUILT_IN = ("/snowflake/images/", "cre@")


class Repositories(Objects):
    """The image repositories of the account."""

    kind = Kind(
        words=("IMAGE", "REPOSITORY"),
        plural="REPOSITORIES",
        label="Image repository",
        properties=frozenset({"COMMENT", "ENCRYPTION"}),
        columns=(
            Column("created_on", "timestamp_ltz"),
            Column("name"),
            Column("database_name"),
            Column("schema_name"),
            Column("repository_url"),
            Column("owner"),
            Column("owner_role_type"),
            Column("comment"),
            Column("encryption"),
        ),
    )

    def row(self, name: QualifiedName, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return a repository's row of SHOW."""
        url = "/".join([REGISTRY, *(str(part).lower() for part in (name.database, name.schema, name.name))])
        created, owner = moment(record["created_on"]), record["owner"]
        comment, encryption = record.get("COMMENT", ""), record.get("ENCRYPTION") or {"TYPE": _ENCRYPTION}
        return (created, name.name, name.database, name.schema, url, owner, "ROLE", comment, encryption["TYPE"])

    @property
    def extension(self) -> Extension:
        """The statements of the kind, SHOW IMAGES, and those about Snowflake's own repository."""
        syntax = "SHOW IMAGES [LIKE '<pattern>'] IN IMAGE REPOSITORY <name>  (none: repositories hold no images)"
        images = Statement(("SHOW", "IMAGES"), self._show_images, _IMAGES, syntax)
        extension = super().extension
        of_snowflake = Statement(
            ("SHOW", "IMAGE", "REPOSITORIES", "IN", "SCHEMA", "SNOWFLAKE", ".", "IMAGES"),
            self._show_of_snowflake,
            self.kind.columns,
            "SHOW IMAGE REPOSITORIES IN SCHEMA SNOWFLAKE.IMAGES",
        )
        return replace(extension, statements=(*extension.statements, images, of_snowflake))

    def _show_of_snowflake(self, _: Context, parser: Parser) -> Result:
        """Show the repository of Snowflake's own images, by which clients find the registry."""
        if parser.accept("LIMIT"):
            parser.integer()
        parser.expect_end()
        row = self.row(QualifiedName("SNOWFLAKE_IMAGES", "IMAGES", "SNOWFLAKE"), {"created_on": None, "owner": ""})
        return Result(self.kind.columns, [row], statement="show")

    def _show_images(self, context: Context, parser: Parser) -> Result:
        if parser.accept("LIKE"):
            parser.string()
        parser.expect("IN", "IMAGE", "REPOSITORY")
        name = parser.qualified_name()
        parser.expect_end()
        for need in of("IMAGE REPOSITORY", "READ"):
            need.check(context.session, name, "SHOW IMAGES")
        self.get(context.session.resolve(name, "SHOW IMAGES"))
        return Result(_IMAGES, statement="show")

    def knows(self, image: str) -> bool:
        """Return whether the repository of an image, ``/db/schema/repository/…``, exists."""
        if image.startswith(_BUILT_IN):
            return True
        parts = [part.upper() for part in image.strip("/").split("/")[:3]]
        return any(
            [name.database, name.schema, name.name] == parts or str(name).upper() == ".".join(parts)
            for name, _ in self.all()
        )
