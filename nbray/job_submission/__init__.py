"""Jobs: command lines that a cluster runs, which go on when whoever submitted them is gone.

client = nbray.job_submission.JobSubmissionClient()
job = client.submit_job(entrypoint="python train.py", runtime_env={"env_vars": {"LR": "0.1"}})
client.get_job_status(job); client.get_job_logs(job); client.stop_job(job)
"""

from nbray.job_submission.client import JobSubmissionClient
from nbray.job_submission.records import DriverInfo, JobDetails, JobErrorType, JobInfo, JobStatus, JobType

__all__ = ["DriverInfo", "JobDetails", "JobErrorType", "JobInfo", "JobStatus", "JobSubmissionClient", "JobType"]
