-- One row per change of the schema that this warehouse has been through.
CREATE TABLE IF NOT EXISTS schema_history (
  name VARCHAR NOT NULL,                     -- a file of sql/migrations, or 'definitions' for tables and views as a whole
  release VARCHAR NOT NULL,                  -- SHA-256 over all definitions of the release that did it
  applied_at TIMESTAMP NOT NULL              -- UTC
);
