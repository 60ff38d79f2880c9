"""Alembic's entry: the connection, and the transaction it is in, come from `folder.prepare`."""

from alembic import context

from qmtl.adapters.sql.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # The caller commits, or does not.
)
context.run_migrations()
