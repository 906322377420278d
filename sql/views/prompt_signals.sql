-- One row per prompt: every signal side by side.
CREATE OR REPLACE VIEW prompt_signals AS
SELECT
  p.dataset_version, p.prompt_id, p.split, p.topic, p.n_tokens, p.text,
  c.cluster_id, d.n_active_features, d.n_active_per_token, d.magnitude, d.proxy, d.difficulty, d.difficulty_rank,
  q.quality, q.kept
FROM prompts p
LEFT JOIN cluster_assignments c USING (dataset_version, prompt_id)
LEFT JOIN difficulty_scores d USING (dataset_version, prompt_id)
LEFT JOIN quality_scores q USING (dataset_version, prompt_id);
