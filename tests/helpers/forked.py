"""A process of its own without the seconds that importing torch takes: a copy of this one, which has it already."""

import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback

from accelerate.state import AcceleratorState


def run_forked(script, *arguments, **environment):
    """Run a script (a path) or a module (its name) with `arguments`; what `subprocess.run` would give back."""
    return _Copy(script, arguments, environment).wait()


def run_two_ranks(script, *arguments):
    """Run a script in two processes that work together on the CPU, as `accelerate launch` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    world |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2"}
    ranks = [_Copy(script, arguments, {**world, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    return [rank.wait() for rank in ranks]


class _Copy:
    def __init__(self, script, arguments, environment):
        self.command = list(map(str, (script, *arguments)))
        self.out, self.err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 - `wait` closes them
        self.child = os.fork()
        if not self.child:
            _become(self.command, self.out.fileno(), self.err.fileno(), environment)

    def wait(self):
        _, status = os.waitpid(self.child, 0)
        printed = []
        for file in (self.out, self.err):
            with file:
                file.seek(0)
                printed.append(file.read().decode())
        return subprocess.CompletedProcess(self.command, os.waitstatus_to_exitcode(status), *printed)


def _become(command, out, err, environment):
    code = 1
    signal.alarm(300)  # none of them may wait for ever
    sys.settrace(None)  # no coverage is kept of it
    try:
        os.dup2(out, 1), os.dup2(err, 2)
        sys.argv, sys.stdout, sys.stderr = command, os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.update(environment)
        AcceleratorState._reset_state(reset_partial_state=True)  # what tests before it have set up
        try:
            if command[0].endswith(".py"):
                runpy.run_path(command[0], run_name="__main__")
            else:
                runpy.run_module(command[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os._exit(code)
