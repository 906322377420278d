-- One row per row of a file of labels or of a training log that was not taken up, with its reason.
-- key: dataset_version, file_digest, line
-- write: append
CREATE TABLE IF NOT EXISTS rejected_feedback (
  dataset_version VARCHAR NOT NULL,
  file_digest VARCHAR NOT NULL,
  line UBIGINT NOT NULL,                     -- line of a text file, row of another, from 1
  reason_code VARCHAR NOT NULL,              -- no_such_prompt, no_value, not_a_number, broken_json and so on
  reason VARCHAR NOT NULL,                   -- in words
  raw VARCHAR NOT NULL                       -- the row, cut to 2,000 characters
);
