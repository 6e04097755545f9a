"""Jobs on other machines, and sweeps: one command each, `--dry-run` shows what it would do.

tpu_vm   a Cloud TPU slice: queued resource, install, run on all workers, resume, delete.
gke      a JobSet on Google Kubernetes Engine.
slurm    a batch job of a SLURM cluster.
local    several processes of this machine, as several machines would train.
sweep    many runs of one config: here one after another or side by side, or one job each.

The trainer says how a run ended: 0 done, 2 bad input (never retried), 3 stopped with a checkpoint
saved (the same command goes on from there). Launchers act on that. None of them holds a secret:
they call `gcloud`, `kubectl` and `sbatch` with whatever login those have.
"""
