-- One row per score and set of rows: how well a difficulty score ranks the labelled prompts.
-- key: dataset_version, score_name, rows
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS difficulty_proxy (
  dataset_version VARCHAR NOT NULL,
  score_name VARCHAR NOT NULL,               -- proxy, count, count_per_token, magnitude or length
  rows VARCHAR NOT NULL,                     -- held_out (cross-validated) or fitted
  n_rows UBIGINT NOT NULL,                   -- labelled prompts measured on
  spearman DOUBLE,                           -- rank correlation with the label; null where it is not defined
  low DOUBLE,                                -- its 95% interval by bootstrap over prompts; null for fitted rows
  high DOUBLE,
  r2 DOUBLE,                                 -- share of the label's variance explained, once the score is on the label's scale
  over_length DOUBLE,                        -- spearman minus that of plain length, whichever way round length ranks
  over_length_low DOUBLE,                    -- its 95% interval
  over_length_high DOUBLE,
  explanation VARCHAR NOT NULL               -- what it is, or why it was skipped and how to supply what is missing
);
