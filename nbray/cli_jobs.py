"""`nbray job ...`: submit a command line to a cluster, follow it, end it.

nbray job submit -- python train.py --lr 0.1        runs in the cluster; its output is followed until it ends
nbray job list | status ID | logs [-f] ID | stop ID | delete ID
"""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nbray.driver.looking import ADDRESS_VARIABLE
from nbray.job_submission import JobDetails, JobStatus, JobSubmissionClient

WIDTH = 100
#: Of a status: jobs of each kind, and characters of a command line.
SHOWN, COMMAND = 20, 60


def add(commands: Any) -> None:
    """Add the commands of this module to the subparsers `commands`."""
    job = commands.add_parser("job", help="submit a command line to a cluster, and look at it, follow it, end it")
    verbs = job.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _submit_arguments(verbs.add_parser("submit", help="have the cluster run a command line"))
    status = verbs.add_parser("status", help="how a job is doing")
    status.set_defaults(run=_status)
    stop = verbs.add_parser("stop", help="end a job: SIGTERM, and SIGKILL for what is left after a moment")
    stop.add_argument("--no-wait", action="store_true", help="do not wait until it has ended")
    stop.set_defaults(run=_stop)
    logs = verbs.add_parser("logs", help="what a job has printed")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job is over")
    logs.set_defaults(run=_logs)
    delete = verbs.add_parser("delete", help="forget a job that is over, with its log")
    delete.set_defaults(run=_delete)
    for each in (status, stop, logs, delete):
        each.add_argument("id", metavar="ID", help="the submission id, as `nbray job list` shows it")
    listing = verbs.add_parser("list", help="the jobs of the cluster, those that attached by themselves too")
    listing.add_argument("--format", choices=("table", "json"), default="table")
    listing.set_defaults(run=_list)
    for each in (status, stop, logs, delete, listing):
        _address(each)


def _address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address", metavar="ADDRESS", help=f"host:port, or a connection file; default: ${ADDRESS_VARIABLE}, else what runs here"
    )


def _submit_arguments(submit: argparse.ArgumentParser) -> None:
    _address(submit)
    submit.add_argument("--submission-id", metavar="ID", help="default: one is made")
    submit.add_argument("--job-id", dest="submission_id", help=argparse.SUPPRESS)
    env = submit.add_mutually_exclusive_group()
    env.add_argument("--runtime-env", metavar="FILE", help="a file with a runtime_env in YAML or JSON")
    env.add_argument("--runtime-env-json", type=_object, metavar="JSON", help="""'{"env_vars": {"LR": "0.1"}}'""")
    submit.add_argument("--working-dir", metavar="DIR", help="to run in; over that of the runtime_env")
    submit.add_argument("--metadata-json", type=_object, metavar="JSON", help="texts by name, shown with the job")
    submit.add_argument("--entrypoint-num-cpus", type=float, metavar="N", help="held while it runs, beside what its tasks take")
    submit.add_argument("--entrypoint-num-gpus", type=float, metavar="N")
    submit.add_argument("--entrypoint-memory", type=int, metavar="BYTES")
    submit.add_argument("--entrypoint-resources", type=_object, metavar="JSON", help="""'{"disk": 1}'""")
    submit.add_argument("--entrypoint-label-selector", type=_object, metavar="JSON", help="""'{"zone": "in(a, b)"}'""")
    submit.add_argument("--no-wait", action="store_true", help="do not follow its output")
    submit.add_argument("--verbose", action="store_true", help="say to which cluster it went")
    submit.add_argument("entrypoint", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run, after two dashes")
    submit.set_defaults(run=_submit)


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object") from None


def waiting(jobs: Sequence[Mapping[str, Any]], *, verbose: bool = False) -> list[str]:
    """Lines for `nbray status`, from the head's "job_list": submitted jobs that wait, and why; `verbose`: those that run, too."""
    submitted = [job for job in jobs if job["type"] == "SUBMISSION"]
    lines = []
    for status, heading in (("PENDING", "Submitted jobs that wait:"), ("RUNNING", "Submitted jobs that run:")):
        found = [job for job in submitted if job["status"] == status]
        if found and (verbose or status == "PENDING"):
            lines += [heading, *(f"  {_line(job)}" for job in found[:SHOWN])]
            lines += [f"  and {len(found) - SHOWN} more: nbray job list"] if len(found) > SHOWN else []
    return lines


def _line(job: Mapping[str, Any]) -> str:
    where = f" on node {job['node_id'][:4]}" if job["node_id"] else ""
    why = job["message"].removeprefix("Job has not started yet.").removeprefix("Job has not started yet:").strip()
    command = job["entrypoint"].replace("\n", " ")
    said = f"{why or 'it is about to start.'} " if job["status"] == "PENDING" else ""
    return f"{job['submission_id']}{where}: {said}({command if len(command) <= COMMAND else command[: COMMAND - 3] + '...'})"


# ---------------------------------------------------------------------------------------------------- commands


def _submit(arguments: argparse.Namespace) -> int:
    words = arguments.entrypoint[arguments.entrypoint[:1] == ["--"] :]
    if not words:
        raise ValueError("nothing to run: nbray job submit -- python train.py")
    client = JobSubmissionClient(arguments.address)
    if arguments.verbose:
        print(f"Submitting to {client.get_address()}.")
    job = client.submit_job(
        # One word is a shell's command line already; several are the words of one command.
        entrypoint=words[0] if len(words) == 1 else shlex.join(words),
        submission_id=arguments.submission_id,
        runtime_env=_environment(arguments),
        metadata=arguments.metadata_json,
        entrypoint_num_cpus=arguments.entrypoint_num_cpus,
        entrypoint_num_gpus=arguments.entrypoint_num_gpus,
        entrypoint_memory=arguments.entrypoint_memory,
        entrypoint_resources=arguments.entrypoint_resources,
        entrypoint_label_selector=arguments.entrypoint_label_selector,
    )
    print(f"Job '{job}' submitted successfully", flush=True)
    if arguments.no_wait:
        print(f"  nbray job status {job}\n  nbray job logs -f {job}\n  nbray job stop {job}")
        return 0
    print("Tailing logs until the job exits (it goes on after Ctrl-C; disable with --no-wait):", flush=True)
    return _followed(client, job)


def _environment(arguments: argparse.Namespace) -> dict[str, Any]:
    env: dict[str, Any] = dict(arguments.runtime_env_json or {})
    if arguments.runtime_env:
        env = _file(arguments.runtime_env)
    return {**env, "working_dir": arguments.working_dir} if arguments.working_dir else env


def _file(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        raw = file.read()
    try:
        # Every JSON text is YAML, but only YAML needs a library that may not be here.
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError:
        pass
    try:
        return msgspec.yaml.decode(raw, type=dict[str, Any])
    except ImportError:
        raise ValueError(f"{path} is not JSON, and PyYAML, which reads YAML, is not installed: pip install pyyaml") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is neither JSON nor YAML of a runtime_env: {error}") from None


def _followed(client: JobSubmissionClient, job: str) -> int:
    """Print its output until it is over. 1 if it failed."""
    for text in client.follow_job_logs(job):
        sys.stdout.write(text)
        sys.stdout.flush()
    return _said(client.get_job_info(job))


def _said(job: JobDetails) -> int:
    name = job.submission_id
    match job.status:
        case JobStatus.SUCCEEDED:
            print(f"Job '{name}' succeeded")
        case JobStatus.STOPPED:
            print(f"Job '{name}' was stopped")
        case JobStatus.FAILED:
            print(f"Job '{name}' failed\nStatus message: {job.message}")
            return 1
        case _:
            print(f"Status for job '{name}': {job.status}\nStatus message: {job.message}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    _said(JobSubmissionClient(arguments.address).get_job_info(arguments.id))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    client = JobSubmissionClient(arguments.address)
    told = client.stop_job(arguments.id)
    if told and arguments.no_wait:
        print(f"Attempting to stop job '{arguments.id}'")
        return 0
    client.wait_job(arguments.id)
    _said(client.get_job_info(arguments.id))
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    client = JobSubmissionClient(arguments.address)
    if arguments.follow:
        return _followed(client, arguments.id)
    sys.stdout.write(client.get_job_logs(arguments.id))
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    JobSubmissionClient(arguments.address).delete_job(arguments.id)
    print(f"Job '{arguments.id}' deleted successfully")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    jobs = JobSubmissionClient(arguments.address).list_jobs()
    if arguments.format == "json":
        print(msgspec.json.format(msgspec.json.encode(jobs), indent=2).decode())
        return 0
    rows = [("ID", "STATUS", "BEGUN", "TOOK", "ENTRYPOINT")]
    rows += [
        (job.submission_id or f"driver {job.job_id}", str(job.status), _moment(job.start_time), _took(job), job.entrypoint)
        for job in jobs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    room = shutil.get_terminal_size((WIDTH, 24)).columns
    for row in rows:
        line = "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4].replace("\n", " ")])
        print(line if len(line) <= room else line[: room - 3] + "...")
    return 0


def _moment(ms: int | None) -> str:
    return dt.datetime.fromtimestamp(ms / 1000).astimezone().strftime("%m-%d %H:%M:%S") if ms else "-"


def _took(job: JobDetails) -> str:
    if not job.start_time or not job.end_time:
        return "-"
    return f"{(job.end_time - job.start_time) / 1000:.1f} s"
