-- One row per dataset version.
-- key: dataset_version
-- write: append
CREATE TABLE IF NOT EXISTS versions (
  dataset_version VARCHAR NOT NULL,          -- <name>-v<n>
  description VARCHAR NOT NULL,              -- one sentence from the spec
  parent VARCHAR,                            -- the version that this one continues
  spec VARCHAR NOT NULL,                     -- canonical spec, JSON
  spec_digest VARCHAR NOT NULL,              -- SHA-256 of the canonical spec
  resolved VARCHAR NOT NULL,                 -- JSON: what the spec's names stood for (paths, digests, revisions, the parent's SAE)
  registered_at TIMESTAMP NOT NULL,          -- UTC
  current_manifest_id VARCHAR                -- the manifest that exports and reports use
);
