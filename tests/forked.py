"""A process of its own without the seconds that importing torch takes: a copy of this one, which has it already."""

import os
import runpy
import subprocess
import sys
import tempfile
import traceback


def run_forked(script, *arguments, **environment):
    """Run a script (a path) or a module (its name) with `arguments`; what `subprocess.run` would give back."""
    command = list(map(str, (script, *arguments)))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            _become(command, out.fileno(), err.fileno(), environment)
        _, status = os.waitpid(child, 0)
        out.seek(0), err.seek(0)
        printed = out.read().decode(), err.read().decode()
    return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status), *printed)


def _become(command, out, err, environment):
    code = 1
    try:
        os.dup2(out, 1), os.dup2(err, 2)
        sys.argv, sys.stdout, sys.stderr = command, os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.update(environment)
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
