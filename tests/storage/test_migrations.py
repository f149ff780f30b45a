from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlmodel import SQLModel

import storage.migrations
from storage.database import VERSION_TABLE, Database
from storage.migrations import HEAD, KNOWN


@pytest.fixture(scope="module")
def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(storage.migrations.__file__).parent))
    return ScriptDirectory.from_config(config)


def test_there_is_one_head_and_it_is_the_one_we_open(scripts: ScriptDirectory) -> None:
    assert scripts.get_heads() == [HEAD]


def test_every_revision_is_known(scripts: ScriptDirectory) -> None:
    assert {script.revision for script in scripts.walk_revisions()} == KNOWN


def test_models_and_head_do_not_differ(database: Database) -> None:
    with database.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_the_migrations_make_every_table_from_nothing(database: Database) -> None:
    with database.read() as session:
        found = set(inspect(session.connection()).get_table_names())
    assert found == set(SQLModel.metadata.tables) | {VERSION_TABLE}


def test_later_migrations_find_constraints_by_name(database: Database) -> None:
    with database.read() as session:
        schema = inspect(session.connection())
        for table in SQLModel.metadata.tables:
            constraints = [*schema.get_unique_constraints(table), *schema.get_foreign_keys(table)]
            assert all(constraint["name"] for constraint in constraints), table
