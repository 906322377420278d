#!/usr/bin/env bash
# GRPO on the demo's prompts in the demo's order, on one machine with 8 GPUs. First: make demo
#   pip install openrlhf==0.11.2 vllm reasoning-gym==0.1.25 && pip install --no-deps saerl-assets && pip install polars pydantic
#   examples/openrlhf/grpo.sh path/to/model
set -euo pipefail
cd "$(dirname "$0")/../.."

MODEL=${1:?give a model: a folder or a name on the hub}
GPUS=${GPUS:-8}
SAERL_HOME=${SAERL_HOME:-.saerl}
OUTPUT=${OUTPUT:-$PWD/.saerl/openrlhf-grpo}

# The export is made by the environment of the platform and read by that of OpenRLHF.
export SAERL_EXPORT=${SAERL_EXPORT:-$PWD/.saerl/openrlhf-export}
[ -d "$SAERL_EXPORT" ] || .venv/bin/saerl --home "$SAERL_HOME" export demo-v1 --to openrlhf --out "$SAERL_EXPORT"

mkdir -p "$OUTPUT"
export SAERL_SAMPLES=8 # responses to a prompt, as in the export's args.txt
export SAERL_LOG=$OUTPUT/saerl_log.jsonl

python -m saerl_assets.trainers.openrlhf_launcher --export "$SAERL_EXPORT" \
  --algo.advantage.estimator group_norm \
  --algo.kl.use_loss --algo.kl.estimator k3 --algo.kl.init_coef 1e-3 \
  --reward.remote_url "$PWD/examples/openrlhf/reward.py" \
  --actor.model_name_or_path "$MODEL" \
  --actor.num_gpus_per_node "$GPUS" --ref.num_gpus_per_node "$GPUS" \
  --vllm.num_engines "$GPUS" --vllm.tensor_parallel_size 1 --vllm.gpu_memory_utilization 0.5 \
  --train.colocate_all --vllm.enable_sleep --ds.enable_sleep \
  --train.micro_batch_size 4 --rollout.micro_batch_size 8 \
  --data.max_len 1536 --rollout.max_new_tokens 1024 \
  --actor.adam.lr 1e-6 --ds.zero_stage 2 --ds.param_dtype bf16 --actor.gradient_checkpointing_enable \
  --ckpt.path "$OUTPUT/checkpoints" --ckpt.save_steps 20 --ckpt.output_dir "$OUTPUT/model" \
  "${@:2}"

# Did it follow the manifest?
.venv/bin/saerl verify "$SAERL_LOG" --manifest "$SAERL_EXPORT"
