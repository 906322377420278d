-- One row per training prompt and evaluation row that it repeats, with the evidence.
-- key: dataset_version, prompt_id, evaluation, evaluation_row
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS contamination (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  evaluation VARCHAR NOT NULL,               -- the source as the spec names it, or 'evaluation split' for the version's own
  evaluation_row VARCHAR NOT NULL,           -- file and line; of the own evaluation split the prompt_id
  found_by VARCHAR NOT NULL,                 -- ngrams, whole_text (the prompt holds the whole row) or near_duplicate
  n_words UINTEGER,                          -- words of the longest run that both have; null for a near-duplicate
  overlap_fraction DOUBLE NOT NULL,          -- share of the row's n-grams that are in the prompt; or the Jaccard overlap
  shared_text VARCHAR NOT NULL,              -- that run; of a near-duplicate the row's own text
  explanation VARCHAR NOT NULL               -- the evidence in a sentence
);
