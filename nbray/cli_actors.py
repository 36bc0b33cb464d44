"""`nbray kill-actor`: end a named actor, for when whoever made it is gone."""

from __future__ import annotations

import argparse
from typing import Any

from nbray.driver import looking
from nbray.wire.messages import KillActor, ReleaseActor


def add(commands: Any) -> None:
    """Add the command of this module to the subparsers `commands`."""
    kill = commands.add_parser("kill-actor", help="kill a named actor")
    kill.add_argument("--name", required=True, help="the actor's name, as `nbray list actors` shows it")
    kill.add_argument("--namespace", help="needed only if actors of several namespaces have the name")
    kill.add_argument("--force", action="store_true", help="at once; otherwise it ends in order, after the calls that it has")
    kill.add_argument("--no-restart", action="store_true", help="with --force: for good, also if it has restarts left")
    kill.add_argument("--address", metavar="ADDRESS", help=f"default: ${looking.ADDRESS_VARIABLE}, else what runs here")
    kill.set_defaults(run=_kill)


def _kill(arguments: argparse.Namespace) -> int:
    if arguments.no_restart and not arguments.force:
        raise ValueError("--no-restart is for --force: an actor that ends in order is not restarted")
    with looking.at(arguments.address) as (viewer, name):
        named = [one for one in viewer.ask("actors") if one["name"] == arguments.name and one["state"] != "DEAD"]
        if arguments.namespace is not None:
            named = [one for one in named if one["namespace"] == arguments.namespace]
        if not named:
            where = f" in the namespace {arguments.namespace}" if arguments.namespace is not None else ""
            raise ValueError(f"no actor of {name} is called {arguments.name}{where}")
        if len(named) > 1:
            spaces = " | ".join(sorted(one["namespace"] for one in named))
            raise ValueError(f"several actors are called {arguments.name}; name one's namespace: --namespace {spaces}")
        actor = bytes.fromhex(named[0]["actor_id"])
        viewer.tell(KillActor(actor, arguments.no_restart) if arguments.force else ReleaseActor(actor, asked=True))
        # The head takes what comes from us in order: when it answers this, the order has been given.
        now = next(one for one in viewer.ask("actors") if one["actor_id"] == named[0]["actor_id"])
    if arguments.force:
        print(f"Killed {now['class_name']} {arguments.name}; it is {now['state']}.")
    else:
        print(f"Asked {now['class_name']} {arguments.name} to end; it is {now['state']}.")
    return 0
