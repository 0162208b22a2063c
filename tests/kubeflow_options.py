"""Every option of a cluster with a value of its own, for tests of compiled files."""

EVERY_OPTION = [
    "image=localhost/aupair:abc", "image_pull_policy=IfNotPresent", "image_pull_secrets=[pull]", "gpus=2", "memory=true",
    "cpu={preprocess-faces: 8}", "shm=8", "scratch=50", "secrets.s3={access: AWS_ACCESS_KEY_ID}",
    "secrets.mlflow={password: MLFLOW_TRACKING_PASSWORD}", "env.MLFLOW_TRACKING_URI=http://mlflow:5000", "run_id=true",
    "tolerations=[{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]", "node_selector={pool: gpu}",
    "pvcs.ckpt=/ckpt", "checkpoints=/ckpt/a", "timeout=3600", "deadline=9000", "retries=2", "parallelism=2", "ttl=86400",
    "cache=true",
]  # fmt: skip
