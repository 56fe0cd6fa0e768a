"""`up --no-wait`: the stack in the background, with a session of its own."""

from __future__ import annotations

import os
import sys

from matrix_pypi_bot.devstack.home import sign_lock
from matrix_pypi_bot.devstack.preparing import Prepared


def go_to_background(prepared: Prepared) -> bool:
    """Fork. False in the process that the caller is waiting for; True in the one that runs on, its output in `logs/up.log`.

    The lock on the folder goes with it. Called while there is one thread and no child.
    """
    log = prepared.home.log("stack", "up")
    sys.stdout.flush()
    child = os.fork()
    if child:
        print(f"starting in the background (process {child}); {prepared.home.stack_file} appears when it is ready")
        print(f"stop it with: kill {child}    log: {log}")
        return False
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(source, target)
    os.close(descriptor)
    os.close(nothing)
    sign_lock(prepared.lock)
    return True
