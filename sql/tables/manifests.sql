-- One row per batch manifest; a version keeps all of its manifests.
-- key: manifest_id
-- write: append
CREATE TABLE IF NOT EXISTS manifests (
  manifest_id VARCHAR NOT NULL,              -- SHA-256 over the ordered rows of batch_manifest and deferred_prompts
  dataset_version VARCHAR NOT NULL,
  parent_manifest_id VARCHAR,                -- the manifest that this one goes on after: its epochs were trained on before, or its feedback planned this one
  planner VARCHAR NOT NULL,                  -- the arm that is exported
  n_arms UINTEGER NOT NULL,
  n_epochs UINTEGER NOT NULL,
  n_steps UINTEGER NOT NULL,                 -- batches of the exported arm, all epochs
  n_prompts UBIGINT NOT NULL,                -- distinct prompts of the exported arm
  inputs_digest VARCHAR NOT NULL,            -- SHA-256 over spec, assignments, difficulty, quality and hygiene that it was planned from
  created_at TIMESTAMP NOT NULL              -- UTC
);
