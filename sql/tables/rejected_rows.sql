-- One row per source row that was not taken: where it stands, why, and the row itself.
-- key: dataset_version, position
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS rejected_rows (
  dataset_version VARCHAR NOT NULL,
  position UBIGINT NOT NULL,                 -- row in the source, counted from 0
  file VARCHAR NOT NULL,                     -- the source file or dataset
  line UBIGINT NOT NULL,                     -- line in a text file, row in another, counted from 1
  reason_code VARCHAR NOT NULL,              -- stable short name
  reason VARCHAR NOT NULL,                   -- the reason in words, with the remedy
  raw VARCHAR NOT NULL                       -- the row as it was read, cut at 2,000 characters
);
