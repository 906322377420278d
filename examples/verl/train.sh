#!/usr/bin/env bash
# GRPO or PPO with verl on the demo's prompts in the demo's order, on one machine with GPUs. First: make demo
#
#   examples/verl/train.sh grpo                        8 responses to a prompt, no critic
#   examples/verl/train.sh ppo                         a critic of the same model, 1 response to a prompt
#   examples/verl/train.sh grpo --cfg job              print what verl would train with, and do nothing
#   MODEL=Qwen/Qwen2.5-0.5B-Instruct GPUS=4 examples/verl/train.sh ppo trainer.save_freq=50
#
# verl has an environment of its own. PYTHON is its interpreter; it needs, beside verl and vLLM, what the reward asks for:
#   pip install 'verl[vllm]==0.9.1' reasoning-gym==0.1.25 pydantic && pip install --no-deps path/to/this/checkout
#
# EXPORT is the folder that verl reads; left out, it is written here from the current manifest of KEY. Overrides of your own
# come last and win; `saerl lint --trainer verl FILE` says which would break the order. Run it again to resume.
set -euo pipefail
cd "$(dirname "$0")/../.."

ALGORITHM=${1:?"grpo or ppo"}
shift
PYTHON=${PYTHON:-python3}
SAERL=${SAERL:-.venv/bin/saerl}
KEY=${KEY:-demo-v1}
MODEL=${MODEL:-Qwen/Qwen2.5-0.5B-Instruct}
GPUS=${GPUS:-1}
OUTPUT=${OUTPUT:-$PWD/.saerl/verl-$ALGORITHM}

case $ALGORITHM in
  grpo)
    N=${N:-8}
    METHOD=(algorithm.adv_estimator=grpo
      actor_rollout_ref.actor.use_kl_loss=True
      actor_rollout_ref.actor.kl_loss_coef=0.001
      actor_rollout_ref.actor.kl_loss_type=low_var_kl)
    ;;
  ppo)
    N=${N:-1}
    METHOD=(algorithm.adv_estimator=gae
      critic.model.path="$MODEL"
      critic.optim.lr=1e-5
      critic.use_dynamic_bsz=True)
    ;;
  *)
    echo "error: $ALGORITHM is neither grpo nor ppo" >&2
    exit 2
    ;;
esac

if [ -z "${EXPORT:-}" ]; then
  EXPORT=$OUTPUT/export
  mkdir -p "$OUTPUT"
  "$SAERL" export "$KEY" --to verl --out "$EXPORT"
fi

# Checkpoints and log of one manifest. Where a training resumes, lines about steps after its checkpoint are of lost work.
CHECKPOINTS=$OUTPUT/$(sed -n 's/^trainer.experiment_name=//p' "$EXPORT/overrides.txt")
LOG=$CHECKPOINTS/saerl_log.jsonl
case " $* " in
  *" --cfg "* | *" --help "*) ;;
  *)
    SIZE=$(sed -n 's/^data.train_batch_size=//p' "$EXPORT/overrides.txt")
    STEP=$(cat "$CHECKPOINTS/latest_checkpointed_iteration.txt" 2>/dev/null || echo 0)
    mkdir -p "$CHECKPOINTS"
    touch "$LOG"
    head -n $((STEP * SIZE * N)) "$LOG" >"$LOG.kept"
    mv "$LOG.kept" "$LOG"
    ;;
esac

# The words of overrides.txt are the order; the rest is how to train. verl wants a file for validation, which is not used
# here: give your own as data.val_files with trainer.test_freq=10.
# shellcheck disable=SC2046
"$PYTHON" -m verl.trainer.main_ppo \
  $(cat "$EXPORT/overrides.txt") \
  data.train_files="$EXPORT/train.parquet" \
  data.val_files="$EXPORT/train.parquet" \
  data.max_prompt_length=1024 \
  data.max_response_length=1024 \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=$N \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.5 \
  "${METHOD[@]}" \
  reward.custom_reward_function.path="$PWD/examples/verl/reward.py" \
  reward.custom_reward_function.name=compute_score \
  +reward.custom_reward_function.reward_kwargs.export="$EXPORT" \
  +reward.custom_reward_function.reward_kwargs.log="$LOG" \
  +reward.custom_reward_function.reward_kwargs.n_responses=$N \
  trainer.n_gpus_per_node="$GPUS" \
  trainer.nnodes=1 \
  trainer.logger='[console]' \
  trainer.val_before_train=False \
  trainer.test_freq=-1 \
  trainer.save_freq=20 \
  trainer.default_local_dir="$CHECKPOINTS" \
  "$@"

# Did it follow the manifest?
[ ! -s "$LOG" ] || "$SAERL" verify "$LOG" --manifest "$EXPORT"
