#!/usr/bin/env bash
# Featurize in an array of Slurm jobs: hash once, compute PARTS parts, merge.
#
#   bash slurm.sh --model dinov2-vits14 --dataset table:tiles.csv --batch-size 256
#
# The cache folder (MT_CACHE_DIR), the user's cache folder, images and weights must be on a file system that all nodes see.
# Give a batch size: the parts of a file must have the same one.
set -euo pipefail

parts=${PARTS:-8}
what=$(printf '%q ' "$@")

hash=$(sbatch --parsable --job-name=mt-hash --cpus-per-task=8 \
    --wrap "mt featurize $what --dry-run")
array=$(sbatch --parsable --job-name=mt-part --dependency="afterok:$hash" --array="1-$parts" \
    --gres=gpu:1 --cpus-per-task=16 \
    --wrap "mt featurize $what --shard \$SLURM_ARRAY_TASK_ID/$parts")
sbatch --parsable --job-name=mt-merge --dependency="afterok:$array" --cpus-per-task=2 \
    --wrap "mt cache merge"
