"""Every option of a cluster with a value of its own, for tests of compiled files."""

EVERY_OPTION = [
    "image=localhost/aupair:abc", "image_pull_policy=IfNotPresent", "image_pull_secrets=[pull]", "gpus=2", "memory=true",
    "gpu_type=nvidia.com/gpu", "cpu={preprocess-faces: 8}", "shm=8", "scratch=50", "scratch_class=fast",
    "secrets.s3={access: AWS_ACCESS_KEY_ID}", "secrets.mlflow={password: MLFLOW_TRACKING_PASSWORD}",
    "env.MLFLOW_TRACKING_URI=http://mlflow:5000", "run_id=true", "node_selector={pool: gpu}",
    "tolerations=[{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]", "pvcs.ckpt=/ckpt",
    "checkpoints=/ckpt/a", "run_as_user=1234", "run_as_group=5678", "timeout=3600", "deadline=9000", "retries=2",
    "backoff=30", "retry_window=20000", "parallelism=2", "ttl=86400", "cache=true",
]  # fmt: skip
