-- One row per file of labels or of a training log that arrived after the version was registered.
-- key: dataset_version, file_digest
-- write: append
CREATE TABLE IF NOT EXISTS feedback_files (
  dataset_version VARCHAR NOT NULL,
  file_digest VARCHAR NOT NULL,              -- SHA-256: the same bytes are taken up once
  file VARCHAR NOT NULL,                     -- its name
  format VARCHAR NOT NULL,                   -- trl, verl, saerl_log or plain; unreadable
  n_rows UBIGINT NOT NULL,
  n_observations UBIGINT NOT NULL,           -- rows that it added to label_observations
  n_feedback UBIGINT NOT NULL,               -- rows that it added to training_feedback
  n_rejected UBIGINT NOT NULL,               -- rows in rejected_feedback
  n_unmatched UBIGINT NOT NULL,              -- those of them that match no prompt of the version
  explanation VARCHAR NOT NULL,              -- what it was taken for, in words
  taken_at TIMESTAMP NOT NULL                -- UTC
);
