-- One row per version: its HTML report.
-- key: dataset_version
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS version_report (
  dataset_version VARCHAR NOT NULL,
  manifest_id VARCHAR NOT NULL,              -- the manifest that it describes
  path VARCHAR NOT NULL,                     -- HTML file below the home
  n_bytes UBIGINT NOT NULL,
  digest VARCHAR NOT NULL                    -- SHA-256 of the file
);
