"""Where a sweep's runs are executed besides its own process: joblib's processes, a ray cluster, a SLURM queue."""
