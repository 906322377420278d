#!/bin/bash
# Builds one version on a GPU node of a Slurm cluster:  sbatch deploy/slurm.sh math-v1
# Killed by the time limit or a node that failed, it is put back into the queue and goes on: shards, checkpoints and tables
# are kept. Records go where DAGSTER_HOME says, so the webserver shows the run like any other. No secret stands here: export
# PGPASSWORD and AWS_SECRET_ACCESS_KEY before, or read them from a file that only you can read.
#SBATCH --job-name=saerl
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=saerl-%j.log
set -euo pipefail

key=${1:?usage: sbatch deploy/slurm.sh KEY}
export SAERL_HOME=${SAERL_HOME:?a folder that all nodes share}

# At the end of the time it asks for another turn; the run's own process hears of it as well and ends in order.
again() {
  jobs -p | xargs -r kill -TERM || true
  wait || true
  scontrol requeue "${SLURM_JOB_ID:?}"
  exit 0
}
trap again TERM

srun --ntasks=1 saerl run "$key" &
wait -n
