-- One row per version: what exists of it.
CREATE OR REPLACE VIEW version_overview AS
SELECT
  v.dataset_version,
  v.description,
  v.parent,
  v.registered_at,
  (SELECT count(*) FROM prompts p WHERE p.dataset_version = v.dataset_version) AS n_prompts,
  (SELECT count(*) FROM rejected_rows r WHERE r.dataset_version = v.dataset_version) AS n_rejected_rows,
  (SELECT count(*) FROM labels l WHERE l.dataset_version = v.dataset_version) AS n_labels,
  (SELECT count(*) FROM clusters c WHERE c.dataset_version = v.dataset_version) AS n_clusters,
  (SELECT count(*) FROM manifests m WHERE m.dataset_version = v.dataset_version) AS n_manifests,
  v.current_manifest_id
FROM versions v;
