-- One row per score and set of rows: how well a difficulty score ranks the labelled prompts.
-- key: dataset_version, score_name, rows
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS difficulty_proxy (
  dataset_version VARCHAR NOT NULL,
  score_name VARCHAR NOT NULL,               -- proxy, count, magnitude or length
  rows VARCHAR NOT NULL,                     -- held_out (cross-validated) or fitted
  n_rows UBIGINT NOT NULL,                   -- labelled prompts measured on
  spearman DOUBLE,                           -- rank correlation with the label; null where it is not defined
  r2 DOUBLE,                                 -- share of the label's variance explained; for the proxy only
  explanation VARCHAR NOT NULL               -- what it is, or why it was skipped and how to supply what is missing
);
