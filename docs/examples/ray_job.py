"""Submit a featurize run to a Ray cluster as a Ray job, and print what it says until it ends.

python ray_job.py http://HEAD:8265 --model dinov2-vits14 --dataset table:tiles.csv --data-dir /shared/tiles

Every node needs mt with its extra `ray`, and must see images, weights and the cache under the same paths.
"""

import asyncio
import shlex
import sys

from ray.job_submission import JobSubmissionClient


async def main(address: str, *words: str) -> None:
    """Run `mt featurize WORDS --engine ray` as a job of the cluster at this address."""
    client = JobSubmissionClient(address)
    job = client.submit_job(entrypoint=shlex.join(["mt", "featurize", *words, "--engine", "ray"]))
    async for text in client.tail_job_logs(job):
        print(text, end="")
    if (status := client.get_job_status(job)) != "SUCCEEDED":
        sys.exit(f"{job} ended with the status {status}.")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
