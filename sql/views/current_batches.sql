-- One row per slot of the exported arm of every version's current manifest, with the prompt.
CREATE OR REPLACE VIEW current_batches AS
SELECT
  b.dataset_version, b.manifest_id, b.arm, b.epoch, b.step, b.slot, b.prompt_id, b.cluster_id, b.difficulty, b.is_padding,
  p.messages, p.answer, p.topic, p.n_tokens
FROM batch_manifest b
JOIN versions v ON v.current_manifest_id = b.manifest_id
JOIN manifests m ON m.manifest_id = b.manifest_id AND m.planner = b.arm
JOIN prompts p ON p.dataset_version = b.dataset_version AND p.prompt_id = b.prompt_id;
