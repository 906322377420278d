-- One row per prompt that is nearly the same as another one: its group, who represents it, and its closest link.
-- key: dataset_version, prompt_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS near_duplicates (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  group_id UINTEGER NOT NULL,                -- by size, largest first
  n_prompts UINTEGER NOT NULL,               -- prompts of the group
  representative VARCHAR NOT NULL,           -- its smallest training prompt_id; where it has none, its smallest prompt_id
  role VARCHAR NOT NULL,                     -- representative, copy (what folding defers) or evaluation (of that split)
  nearest VARCHAR NOT NULL,                  -- the prompt of the group whose text overlaps most with this one's
  jaccard DOUBLE NOT NULL,                   -- overlap of their five-letter pieces, 1 for the same text but for punctuation
  similarity DOUBLE NOT NULL,                -- cosine of their features
  found_by VARCHAR NOT NULL                  -- which of the two was near enough: text, features or both
);
