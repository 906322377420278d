-- One row per version, training run and prompt: its difficulty beside what the training measured on it.
-- Of a log that came more than once, each step counts as the file has it in which the prompt has most completions.
CREATE OR REPLACE VIEW difficulty_feedback AS
WITH newest AS (
  SELECT * FROM training_feedback
  QUALIFY row_number() OVER (
    PARTITION BY dataset_version, run_name, step, prompt_id ORDER BY n_completions DESC, observed_at, file_digest
  ) = 1
)
SELECT
  f.dataset_version, f.run_name, f.prompt_id,
  any_value(d.difficulty) AS difficulty,
  any_value(d.difficulty_rank) AS difficulty_rank,
  any_value(d.score_name) AS score_name,
  any_value(c.cluster_id) AS cluster_id,
  count(DISTINCT f.step) AS n_steps,
  sum(f.n_completions) AS n_completions,
  sum(f.reward * f.n_completions) / sum(f.n_completions) FILTER (f.reward IS NOT NULL) AS reward,
  sum(f.loss * f.n_completions) / sum(f.n_completions) FILTER (f.loss IS NOT NULL) AS loss,
  sum(f.pass_rate * f.n_completions) / sum(f.n_completions) FILTER (f.pass_rate IS NOT NULL) AS pass_rate
FROM newest f
LEFT JOIN difficulty_scores d USING (dataset_version, prompt_id)
LEFT JOIN cluster_assignments c USING (dataset_version, prompt_id)
GROUP BY f.dataset_version, f.run_name, f.prompt_id;
