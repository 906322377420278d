-- One row per prompt of a group of near-duplicates, with what it says, beside the representative.
CREATE OR REPLACE VIEW near_duplicate_groups AS
SELECT
  n.dataset_version, n.group_id, n.n_prompts, n.role, n.prompt_id, n.jaccard, n.similarity, n.found_by,
  c.cluster_id, p.split, p.topic, p.text, r.text AS representative_text
FROM near_duplicates n
JOIN prompts p USING (dataset_version, prompt_id)
LEFT JOIN prompts r ON r.dataset_version = n.dataset_version AND r.prompt_id = n.representative
LEFT JOIN cluster_assignments c ON c.dataset_version = n.dataset_version AND c.prompt_id = n.prompt_id;
