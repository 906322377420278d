-- One row per prompt on the map of a version: its place in a plane in which like prompts lie together.
-- key: dataset_version, prompt_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS cluster_map (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,                -- of an even sample; prompts without active features have no place
  cluster_id UINTEGER NOT NULL,
  x DOUBLE NOT NULL,                         -- 0 to 1; neighbours are alike, distances between groups mean little
  y DOUBLE NOT NULL                          -- 0 to 1
);
