"""Configurations that keep the order, and for every rule one change that breaks it.

The sizes are those of an export of 20 batches of 32 prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from saerl_assets.trainers.export import ExportRecord
from saerl_assets.trainers.lint.rules import Level

BATCH_SIZE, N_STEPS = 32, 20


def export_of(trainer: str) -> ExportRecord:
    return ExportRecord(
        trainer=trainer,
        dataset_version="some-v1",
        manifest_id="m" * 64,
        arm="clustered",
        batch_size=BATCH_SIZE,
        n_rows=BATCH_SIZE * N_STEPS,
        n_steps=N_STEPS,
        n_left_out=0,
        order_digest="o" * 64,
        spec={},
        spec_digest="s" * 64,
        digests={},
        files={},
    )


@dataclass(frozen=True)
class Example:
    """A change of the first good configuration of a trainer, and what has to be said of it."""

    trainer: str
    setting: str
    instead_of: str
    """What is replaced; empty where the change is put at the end."""
    by: str
    value: str
    """As it is told."""
    remedy: str
    level: Level = "problem"
    with_export: bool = False


TRL_SCRIPT = """\
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

dataset = load_dataset("parquet", data_files="train.parquet", split="train")
G = 8
args = GRPOConfig(
    output_dir="out",
    shuffle_dataset=False,
    num_train_epochs=1,
    num_generations=G,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=32,
    steps_per_generation=32,
    remove_unused_columns=False,
)
trainer = GRPOTrainer(
    model="m",
    reward_funcs=print,
    args=args,
    train_dataset=dataset,
)
"""

TRL_JSON = """\
{
  "shuffle_dataset": false,
  "num_train_epochs": 1,
  "num_generations": 8,
  "per_device_train_batch_size": 8,
  "gradient_accumulation_steps": 32,
  "steps_per_generation": 32
}
"""

TRL_YAML = """\
dataset_name: ./export
shuffle_dataset: false
num_train_epochs: 1
num_generations: 8
per_device_train_batch_size: 16
gradient_accumulation_steps: 16
"""

TRL_SHELL = """\
#!/bin/bash
GENERATIONS=8
accelerate launch --num_processes 4 -m trl.scripts.grpo \\
  --dataset_name ./export --no_shuffle_dataset \\
  --num_train_epochs=1 \\
  --num_generations $GENERATIONS --per-device-train-batch-size 8 \\
  --gradient_accumulation_steps 8   # 8 * 4 * 8 completions
"""

DPO_SCRIPT = """\
from trl import DPOConfig, DPOTrainer
args = DPOConfig(
    output_dir="out",
    train_sampling_strategy="sequential",
    num_train_epochs=1,
    max_length=None,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=8,
)
trainer = DPOTrainer(
    args=args,
    train_dataset=dataset,
)
"""

DPO_SHELL = """\
trl dpo --train_sampling_strategy sequential --num_train_epochs 1 --truncation_mode keep_end \\
  --per_device_train_batch_size 4 --gradient_accumulation_steps 8
"""

VERL_SHELL = """\
set -x
EXPORT=/data/export
python3 -m verl.trainer.main_ppo \\
    algorithm.adv_estimator=grpo \\
    data.train_files=$EXPORT/train.parquet \\
    data.shuffle=False \\
    data.train_batch_size=32 \\
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \\
    trainer.total_epochs=1 \\
    trainer.experiment_name=some-v1-clustered-mmmmmmmmmmmm \\
    trainer.n_gpus_per_node=8
"""

VERL_ARRAYS = """\
#!/usr/bin/env bash
bs=${BATCH:-32}
DATA=(
    data.train_files="$EXPORT/train.parquet"
    data.shuffle=False   # the manifest's order
    data.train_batch_size=${bs}
)
ACTOR=(
    actor_rollout_ref.actor.ppo_mini_batch_size=${bs}
)
python3 -m verl.trainer.main_ppo "${DATA[@]}" "${ACTOR[@]}" trainer.total_epochs=1 trainer.resume_mode=disable "$@"
"""

VERL_YAML = """\
defaults:
  - ppo_trainer
  - _self_
data:
  train_files: /data/export/train.parquet
  shuffle: false
  train_batch_size: 32
actor_rollout_ref:
  actor:
    ppo_mini_batch_size: ${data.train_batch_size}
trainer:
  total_epochs: 1
  default_local_dir: /checkpoints/mmmmmmmmmmmm
"""

VERL_OVERRIDES = """\
data.shuffle=False
data.train_batch_size=32
actor_rollout_ref.actor.ppo_mini_batch_size=32
data.train_max_samples=-1
data.filter_overlong_prompts=False
trainer.experiment_name=some-v1-clustered-mmmmmmmmmmmm
trainer.total_epochs=1
"""

OPENRLHF_SHELL = """\
ray job submit --address="http://127.0.0.1:8265" --runtime-env-json='{"working_dir": "/w"}' -- \\
  python3 -m saerl_assets.trainers.openrlhf_launcher --export /data/export \\
  --actor.model_name_or_path m \\
  --rollout.batch_size 32 \\
  --rollout.n_samples_per_prompt 8 \\
  --train.batch_size 256 \\
  --algo.advantage.estimator gae \\
  --data.prompt_dataset /data/export/train.parquet \\
  --data.max_samples 640 \\
  --train.num_episodes 1
"""

NEMO_YAML = """\
defaults: /opt/nemo-rl/grpo_math_1B.yaml
grpo:
  num_prompts_per_step: 32
  num_generations_per_prompt: 8
  max_num_epochs: 1
policy:
  train_global_batch_size: 256
data:
  shuffle: false
  use_multiple_dataloader: false
  train:
    data_path: /data/export/train.jsonl
    split_validation_size: 0
"""

NEMO_FRAGMENT = NEMO_YAML.partition("\n")[2]

NEMO_SHELL = """\
uv run python examples/run_grpo.py grpo.num_prompts_per_step=32 grpo.num_generations_per_prompt=16 \\
  data.shuffle=false data.train.split_validation_size=0
"""

SWIFT_SHELL = """\
NPROC_PER_NODE=4 \\
swift rlhf --rlhf_type grpo \\
    --model m \\
    --dataset /data/export/train.parquet \\
    --dataset_shuffle false \\
    --strict true \\
    --num_train_epochs 1 \\
    --num_generations 8 \\
    --per_device_train_batch_size 8 \\
    --gradient_accumulation_steps 8
"""

SWIFT_YAML = """\
rlhf_type: grpo
dataset: [/data/export/train.parquet]
dataset_shuffle: false
strict: true
num_train_epochs: 1
num_generations: 8
per_device_train_batch_size: 8
gradient_accumulation_steps: 32
steps_per_generation: 32
"""

GOOD: dict[str, list[tuple[str, str]]] = {
    "trl": [("train.py", TRL_SCRIPT), ("grpo.json", TRL_JSON), ("grpo.yaml", TRL_YAML), ("run.sh", TRL_SHELL)],
    "trl_dpo": [("train.py", DPO_SCRIPT), ("run.txt", DPO_SHELL)],
    "verl": [
        ("run.sh", VERL_SHELL),
        ("arrays.sh", VERL_ARRAYS),
        ("ppo.yaml", VERL_YAML),
        ("overrides.txt", VERL_OVERRIDES),
    ],
    "openrlhf": [("run.sh", OPENRLHF_SHELL)],
    "nemo_rl": [("fragment.yaml", NEMO_FRAGMENT), ("run.sh", NEMO_SHELL)],
    "ms_swift": [("run.sh", SWIFT_SHELL), ("grpo.yaml", SWIFT_YAML)],
}


def trl(setting: str, instead_of: str, by: str, value: str, remedy: str, level: Level = "problem") -> Example:
    return Example("trl", setting, instead_of, by, value, remedy, level)


_ADDED = "    remove_unused_columns=False,"

EXAMPLES: list[Example] = [
    # TRL, GRPO
    trl("shuffle_dataset", "    shuffle_dataset=False,\n", "", "not set; the default is True", "shuffle_dataset=False"),
    trl("shuffle_dataset", "shuffle_dataset=False", "shuffle_dataset=True", "True", "Set shuffle_dataset=False."),
    trl(
        "shuffle_dataset",
        "shuffle_dataset=False",
        "shuffle_dataset=arguments.shuffle",
        "arguments.shuffle",
        "cannot be read",
        "unclear",
    ),
    trl("steps_per_generation", "steps_per_generation=32", "steps_per_generation=64", "64", "steps_per_generation=32"),
    trl(
        "generation_batch_size",
        "steps_per_generation=32",
        "generation_batch_size=1000",
        "1000",
        "generation_batch_size=256",
    ),
    trl("num_train_epochs", "    num_train_epochs=1,\n", "", "not set; the default is 3.0", "num_train_epochs=1"),
    trl("ignore_data_skip", _ADDED, "    ignore_data_skip=True,", "True", "ignore_data_skip=False"),
    trl("auto_find_batch_size", _ADDED, "    auto_find_batch_size=True,", "True", "auto_find_batch_size=False"),
    trl("dataloader_in_order", _ADDED, "    dataloader_in_order=False,", "False", "dataloader_in_order=True"),
    trl(
        "accelerator_config.split_batches",
        _ADDED,
        '    accelerator_config={"split_batches": True},',
        "True",
        "split_batches=False",
    ),
    trl(
        "train_dataset",
        "train_dataset=dataset,",
        "train_dataset=dataset.shuffle(seed=1),",
        "['shuffle']",
        "as it is loaded",
    ),
    trl("test_split_size", _ADDED, "    test_split_size=0.1,", "0.1", "Leave it out"),
    trl("datasets", _ADDED, '    datasets=["a", "b"],', "['a', 'b']", "the export alone"),
    trl("num_iterations", _ADDED, "    num_iterations=2,", "2", "num_iterations=1", "caution"),
    trl(
        "remove_unused_columns",
        "remove_unused_columns=False",
        "remove_unused_columns=True",
        "True",
        "=False",
        "caution",
    ),
    Example(
        "trl",
        "gradient_accumulation_steps",
        "gradient_accumulation_steps=32,\n    steps_per_generation=32",
        "gradient_accumulation_steps=24,\n    steps_per_generation=24",
        "24",
        "gradient_accumulation_steps=32",
        with_export=True,
    ),
    Example(
        "trl",
        "num_processes",
        "gradient_accumulation_steps=32,\n    steps_per_generation=32",
        "gradient_accumulation_steps=8,\n    steps_per_generation=8",
        "not set; the default is none",
        "Start 4 processes",
        "caution",
        with_export=True,
    ),
    Example("trl", "max_steps", "    num_train_epochs=1,", "    max_steps=21,", "21", "max_steps=20", with_export=True),
    # TRL, DPO
    Example(
        "trl_dpo",
        "train_sampling_strategy",
        '    train_sampling_strategy="sequential",\n',
        "",
        "not set; the default is random",
        'train_sampling_strategy="sequential"',
    ),
    Example(
        "trl_dpo", "train_sampling_strategy", '"sequential"', '"group_by_length"', "group_by_length", '="sequential"'
    ),
    Example("trl_dpo", "max_length", "max_length=None", "max_length=512", "512", "max_prompt_tokens", "caution"),
    Example(
        "trl_dpo",
        "max_length",
        "    max_length=None,\n",
        "",
        "not set; the default is 1024",
        "max_length=None",
        "caution",
    ),
    Example("trl_dpo", "num_train_epochs", "num_train_epochs=1", "num_train_epochs=2", "2", "num_train_epochs=1"),
    Example(
        "trl_dpo",
        "gradient_accumulation_steps",
        "gradient_accumulation_steps=8",
        "gradient_accumulation_steps=16",
        "16",
        "gradient_accumulation_steps=8",
        with_export=True,
    ),
    Example(
        "trl_dpo",
        "num_processes",
        "gradient_accumulation_steps=8",
        "gradient_accumulation_steps=2",
        "not set; the default is none",
        "Start 4 processes",
        "caution",
        with_export=True,
    ),
    Example(
        "trl_dpo", "max_steps", "    num_train_epochs=1,", "    max_steps=40,", "40", "max_steps=20", with_export=True
    ),
    Example(
        "trl_dpo",
        "ignore_data_skip",
        "    max_length=None,",
        "    max_length=None, ignore_data_skip=True,",
        "True",
        "=False",
    ),
    Example(
        "trl_dpo",
        "auto_find_batch_size",
        "    max_length=None,",
        "    max_length=None, auto_find_batch_size=True,",
        "True",
        "=False",
    ),
    Example(
        "trl_dpo",
        "dataloader_in_order",
        "    max_length=None,",
        "    max_length=None, dataloader_in_order=False,",
        "False",
        "=True",
    ),
    Example(
        "trl_dpo",
        "accelerator_config.split_batches",
        "    max_length=None,",
        "    max_length=None, accelerator_config=dict(split_batches=True),",
        "True",
        "=False",
    ),
    Example(
        "trl_dpo",
        "train_dataset",
        "train_dataset=dataset,",
        'train_dataset=concatenate_datasets([dataset, other])["train"],',
        "['concatenate_datasets']",
        "as it is loaded",
    ),
    Example(
        "trl_dpo",
        "test_split_size",
        "    max_length=None,",
        "    max_length=None, test_split_size=100,",
        "100",
        "Leave it out",
    ),
    Example(
        "trl_dpo",
        "datasets",
        "    max_length=None,",
        "    max_length=None, datasets=[{}, {}],",
        "[{}, {}]",
        "the export alone",
    ),
    # verl
    Example(
        "verl",
        "critic.ppo_mini_batch_size",
        "data.shuffle=False",
        "data.shuffle=False critic.ppo_mini_batch_size=8",
        "8",
        "critic.ppo_mini_batch_size=32",
    ),
    Example(
        "verl",
        "critic.shuffle",
        "data.shuffle=False",
        "data.shuffle=False critic.shuffle=True",
        "True",
        "critic.shuffle=False",
        "caution",
    ),
    Example(
        "verl",
        "trainer.experiment_name",
        "trainer.experiment_name=some-v1-clustered-mmmmmmmmmmmm",
        "trainer.experiment_name=mine",
        "mine",
        "trainer.experiment_name=some-v1-clustered-mmmmmmmmmmmm",
        "caution",
        with_export=True,
    ),
    Example(
        "verl",
        "data.shuffle",
        "    data.shuffle=False \\\n",
        "",
        "not set; the default is True",
        "Set data.shuffle=False.",
    ),
    Example("verl", "data.shuffle", "data.shuffle=False", "++data.shuffle=true", "True", "Set data.shuffle=False."),
    Example(
        "verl", "data.shuffle", "data.shuffle=False", "data.shuffle=$SHUFFLE", "$SHUFFLE", "write it out", "unclear"
    ),
    Example(
        "verl",
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        "ppo_mini_batch_size=32",
        "ppo_mini_batch_size=16",
        "16",
        "actor_rollout_ref.actor.ppo_mini_batch_size=32",
    ),
    Example(
        "verl",
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        "    actor_rollout_ref.actor.ppo_mini_batch_size=32 \\\n",
        "",
        "not set; the default is 256",
        "=32",
    ),
    Example(
        "verl",
        "data.train_max_samples",
        "data.shuffle=False",
        "data.shuffle=False data.train_max_samples=100",
        "100",
        "data.train_max_samples=-1",
    ),
    Example(
        "verl",
        "data.filter_overlong_prompts",
        "data.shuffle=False",
        "data.shuffle=False data.filter_overlong_prompts=True",
        "True",
        "=False",
    ),
    Example(
        "verl",
        "data.gen_batch_size",
        "data.shuffle=False",
        "data.shuffle=False data.gen_batch_size=96",
        "96",
        "Leave it out",
    ),
    Example(
        "verl",
        "data.train_files",
        "data.train_files=$EXPORT/train.parquet",
        "data.train_files=['a.parquet','b.parquet']",
        "['a.parquet', 'b.parquet']",
        "the export's file alone",
    ),
    Example(
        "verl",
        "data.custom_cls.path",
        "data.shuffle=False",
        "data.shuffle=False data.custom_cls.path=mine.py",
        "mine.py",
        "keeps the order",
        "caution",
    ),
    Example(
        "verl",
        "algorithm.filter_groups.enable",
        "data.shuffle=False",
        "data.shuffle=False algorithm.filter_groups.enable=True",
        "True",
        "=False",
    ),
    Example(
        "verl",
        "trainer.v1.sampler.sync_refill_failed_groups",
        "data.shuffle=False",
        "data.shuffle=False trainer.v1.sampler.sync_refill_failed_groups=True",
        "True",
        "=False",
    ),
    Example(
        "verl",
        "trainer.v1.sampler.custom_sampler.path",
        "data.shuffle=False",
        "data.shuffle=False trainer.v1.sampler.custom_sampler.path=a.py",
        "a.py",
        "as they come",
        "caution",
    ),
    Example(
        "verl",
        "trainer.v1.trainer_mode",
        "data.shuffle=False",
        "data.shuffle=False trainer.v1.trainer_mode=separate_async",
        "separate_async",
        "trainer.v1.trainer_mode=sync",
    ),
    Example(
        "verl",
        "program",
        "python3 -m verl.trainer.main_ppo",
        "python3 -m verl.experimental.fully_async_policy.fully_async_main",
        "verl.experimental.fully_async_policy.fully_async_main",
        "verl.trainer.main_ppo",
    ),
    Example(
        "verl",
        "trainer.total_epochs",
        "    trainer.total_epochs=1 \\\n",
        "",
        "not set; the default is 30",
        "trainer.total_epochs=1",
    ),
    Example(
        "verl",
        "actor_rollout_ref.actor.shuffle",
        "data.shuffle=False",
        "data.shuffle=False actor_rollout_ref.actor.shuffle=True",
        "True",
        "=False",
        "caution",
    ),
    Example(
        "verl",
        "actor_rollout_ref.actor.ppo_epochs",
        "data.shuffle=False",
        "data.shuffle=False actor_rollout_ref.actor.ppo_epochs=2",
        "2",
        "=1",
        "caution",
    ),
    Example(
        "verl",
        "trainer.total_training_steps",
        "trainer.total_epochs=1",
        "trainer.total_training_steps=100",
        "100",
        "=20",
        with_export=True,
    ),
    # OpenRLHF
    Example(
        "openrlhf",
        "program",
        "saerl_assets.trainers.openrlhf_launcher --export /data/export",
        "openrlhf.cli.train_ppo_ray",
        "openrlhf.cli.train_ppo_ray",
        "saerl_assets.trainers.openrlhf_launcher",
    ),
    Example(
        "openrlhf",
        "rollout.vllm_generate_batch_size",
        "--train.num_episodes 1",
        "--train.num_episodes 1 --rollout.vllm_generate_batch_size 64",
        "64",
        "Leave it out",
    ),
    Example(
        "openrlhf",
        "rollout_batch_size",
        "--train.num_episodes 1",
        "--train.num_episodes 1 --rollout_batch_size 32",
        "32",
        "--rollout.batch_size",
    ),
    Example(
        "openrlhf",
        "train.batch_size",
        "--train.batch_size 256",
        "--train.batch_size 128",
        "128",
        "--train.batch_size 256",
    ),
    Example(
        "openrlhf",
        "train.async_enable",
        "--train.num_episodes 1",
        "--train.num_episodes 1 --train.async_enable",
        "True",
        "no --train.async_enable",
        "caution",
    ),
    Example(
        "openrlhf",
        "train.partial_rollout_enable",
        "--train.num_episodes 1",
        "--train.num_episodes 1 --train.partial_rollout_enable",
        "True",
        "no --train.partial",
        "caution",
    ),
    Example(
        "openrlhf",
        "critic.freezing_steps",
        "--train.num_episodes 1",
        "--train.num_episodes 1 --critic.freezing_steps 10",
        "10",
        "-1",
    ),
    Example(
        "openrlhf",
        "algo.dynamic_filtering_enable",
        "--train.num_episodes 1",
        "--train.num_episodes 1 --algo.dynamic_filtering_enable",
        "True",
        "no --algo.dynamic",
    ),
    Example(
        "openrlhf",
        "data.prompt_probs",
        "--train.num_episodes 1",
        "--train.num_episodes 1 --data.prompt_probs 0.5,0.5",
        "0.5,0.5",
        "Leave it out",
    ),
    Example(
        "openrlhf",
        "data.prompt_dataset",
        "--data.prompt_dataset /data/export/train.parquet",
        "--data.prompt_dataset a.parquet,b.parquet",
        "a.parquet,b.parquet",
        "the export's file alone",
    ),
    Example(
        "openrlhf",
        "train.num_episodes",
        "--train.num_episodes 1",
        "--train.num_episodes 3",
        "3",
        "--train.num_episodes 1",
    ),
    Example(
        "openrlhf",
        "train.max_epochs",
        "--train.num_episodes 1",
        "--train.num_episodes 1 --train.max_epochs 2",
        "2",
        "--train.max_epochs 1",
        "caution",
    ),
    Example(
        "openrlhf",
        "data.max_samples",
        "--data.max_samples 640",
        "--data.max_samples 100",
        "100",
        "Leave it out",
        with_export=True,
    ),
    # NeMo-RL
    Example(
        "nemo_rl", "data.shuffle", "  shuffle: false\n", "", "not set; the default is True", "Set data.shuffle: false."
    ),
    Example("nemo_rl", "data.shuffle", "shuffle: false", "shuffle: true", "True", "Set data.shuffle: false."),
    Example(
        "nemo_rl",
        "data.train.split_validation_size",
        "split_validation_size: 0",
        "split_validation_size: 0.05",
        "0.05",
        "split_validation_size: 0",
    ),
    Example(
        "nemo_rl",
        "data.default.split_validation_size",
        "",
        "  default: {split_validation_size: 0.1}",
        "0.1",
        "split_validation_size: 0",
    ),
    Example(
        "nemo_rl",
        "data.train",
        "  train:\n    data_path: /data/export/train.jsonl\n    split_validation_size: 0\n",
        "  train: [{data_path: a.jsonl}, {data_path: b.jsonl}]\n",
        "['...', '...']",
        "Give the export alone",
    ),
    Example(
        "nemo_rl",
        "data.use_multiple_dataloader",
        "use_multiple_dataloader: false",
        "use_multiple_dataloader: true",
        "True",
        ": false",
    ),
    Example(
        "nemo_rl", "grpo.use_dynamic_sampling", "  max_num_epochs: 1", "  use_dynamic_sampling: true", "True", ": false"
    ),
    Example(
        "nemo_rl", "grpo.async_grpo.enabled", "  max_num_epochs: 1", "  async_grpo: {enabled: true}", "True", ": false"
    ),
    Example("nemo_rl", "grpo.max_num_epochs", "max_num_epochs: 1", "max_num_epochs: 2", "2", ": 1"),
    Example(
        "nemo_rl",
        "policy.train_global_batch_size",
        "train_global_batch_size: 256",
        "train_global_batch_size: 512",
        "512",
        ": 256",
    ),
    # ms-swift
    Example(
        "ms_swift",
        "dataset_shuffle",
        "    --dataset_shuffle false \\\n",
        "",
        "not set; the default is True",
        "--dataset_shuffle false",
    ),
    Example(
        "ms_swift",
        "dataset_shuffle",
        "--dataset_shuffle false",
        "--dataset_shuffle true",
        "True",
        "Set --dataset_shuffle false.",
    ),
    Example("ms_swift", "rlhf_type", "--rlhf_type grpo", "--rlhf_type dpo", "dpo", "--rlhf_type grpo"),
    Example(
        "ms_swift",
        "split_dataset_ratio",
        "--strict true",
        "--strict true --split_dataset_ratio 0.01",
        "0.01",
        "--split_dataset_ratio 0",
    ),
    Example(
        "ms_swift",
        "interleave_prob",
        "--strict true",
        "--strict true --interleave_prob 0.5 0.5",
        "[0.5, 0.5]",
        "Leave it out",
    ),
    Example(
        "ms_swift",
        "dataset",
        "--dataset /data/export/train.parquet",
        "--dataset /data/export/train.parquet#100",
        "/data/export/train.parquet#100",
        "without #",
    ),
    Example(
        "ms_swift",
        "dataset",
        "--dataset /data/export/train.parquet",
        "--dataset a.jsonl b.jsonl",
        "['a.jsonl', 'b.jsonl']",
        "alone",
    ),
    Example(
        "ms_swift",
        "truncation_strategy",
        "--strict true",
        "--strict true --truncation_strategy delete",
        "delete",
        "--truncation_strategy left",
    ),
    Example(
        "ms_swift",
        "dynamic_sample",
        "--strict true",
        "--strict true --dynamic_sample true",
        "True",
        "--dynamic_sample false",
    ),
    Example(
        "ms_swift",
        "async_generate",
        "--strict true",
        "--strict true --async_generate true",
        "True",
        "--async_generate false",
    ),
    Example(
        "ms_swift", "strict", "    --strict true \\\n", "", "not set; the default is False", "--strict true", "caution"
    ),
    Example(
        "ms_swift",
        "steps_per_generation",
        "--strict true",
        "--strict true --steps_per_generation 16",
        "16",
        "--steps_per_generation 8",
    ),
    Example(
        "ms_swift",
        "generation_batch_size",
        "--strict true",
        "--strict true --generation_batch_size 512",
        "512",
        "--generation_batch_size 256",
    ),
    Example(
        "ms_swift",
        "num_train_epochs",
        "    --num_train_epochs 1 \\\n",
        "",
        "not set; the default is 3.0",
        "--num_train_epochs 1",
    ),
    Example("ms_swift", "max_epochs", "--num_train_epochs 1", "--max_epochs 2", "2", "--max_epochs 1"),
    Example("ms_swift", "ignore_data_skip", "--strict true", "--strict true --ignore_data_skip true", "True", "false"),
    Example("ms_swift", "num_iterations", "--strict true", "--strict true --num_iterations 2", "2", "1", "caution"),
    Example(
        "ms_swift",
        "gradient_accumulation_steps",
        "--gradient_accumulation_steps 8",
        "--gradient_accumulation_steps 16",
        "16",
        "--gradient_accumulation_steps 8",
        with_export=True,
    ),
    Example(
        "ms_swift", "max_steps", "--num_train_epochs 1", "--max_steps 50", "50", "--max_steps 20", with_export=True
    ),
    Example(
        "ms_swift",
        "num_processes",
        "NPROC_PER_NODE=4 \\\n",
        "",
        "not set; the default is none",
        "Start 4 processes",
        "caution",
        with_export=True,
    ),
    # sizes that come from the export
    Example(
        "verl",
        "data.train_batch_size",
        "data.train_batch_size=32 \\\n    actor_rollout_ref.actor.ppo_mini_batch_size=32",
        "data.train_batch_size=64 \\\n    actor_rollout_ref.actor.ppo_mini_batch_size=64",
        "64",
        "data.train_batch_size=32",
        with_export=True,
    ),
    Example(
        "openrlhf",
        "rollout.batch_size",
        "--rollout.batch_size 32 \\\n  --rollout.n_samples_per_prompt 8",
        "--rollout.batch_size 64 \\\n  --rollout.n_samples_per_prompt 4",
        "64",
        "--rollout.batch_size 32",
        with_export=True,
    ),
    Example(
        "nemo_rl",
        "grpo.num_prompts_per_step",
        "num_prompts_per_step: 32\n  num_generations_per_prompt: 8",
        "num_prompts_per_step: 64\n  num_generations_per_prompt: 4",
        "64",
        ": 32",
        with_export=True,
    ),
]
"""Each is one change; `saerl lint` has to name exactly that."""
