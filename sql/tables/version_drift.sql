-- One row per measure of how far a version has moved from its parent.
-- key: dataset_version, measure
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS version_drift (
  dataset_version VARCHAR NOT NULL,
  measure VARCHAR NOT NULL,                  -- moved_fraction, population_shift, centroid_shift, density_shift
  value DOUBLE,                              -- null where there is nothing to compare
  threshold DOUBLE NOT NULL,                 -- from the spec's [drift]
  verdict VARCHAR NOT NULL,                  -- steady, drifted or not_measured
  explanation VARCHAR NOT NULL               -- the measure in words, or why there is none
);
