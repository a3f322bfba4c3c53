"""Three nodes of a Ray cluster on this machine, in a network of their own that has the loopback interface alone.

Elsewhere Ray puts the machine's own address in the place of 127.0.0.1. Every process of a node carries its name in
its environment, by which a node is killed as a power cut would.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ADDRESS = "127.0.0.1:6390"
"""Of the head, in the network that only its own processes see."""
TAG = "UNFOOL_TEST_NODE"
STORE_BYTES = 80_000_000
SOON_DEAD = {"RAY_health_check_initial_delay_ms": "500", "RAY_health_check_period_ms": "500"}
"""Ray knows of a dead node within three seconds, not twenty."""
_START = "import sys,socket,fcntl,struct;" + (
    "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
    "fcntl.ioctl(s,0x8914,struct.pack('16sH14s',b'lo',0x49,b''));"  # SIOCSIFFLAGS: up, loopback, running
    "print('up',flush=True);sys.stdin.read()"
)


class NetworkRefusedError(Exception):
    """This machine allows no network of one's own."""


class ThreeNodes:
    """The cluster: by default nodes a, b and c of one core each; the first is the head."""

    def __init__(self, names="abc"):
        self._tag = secrets.token_hex(4)
        self.hidden = Path(tempfile.mkdtemp(prefix="hidden-"))
        """A folder that is empty for the nodes."""
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets have short paths
        options = ["-n"] if os.getuid() == 0 else ["-rn"]
        self._network = subprocess.Popen(
            ["unshare", *options, sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._network.stdout.readline().strip() != "up":
            self.close()
            raise NetworkRefusedError(self._network.stderr.read().strip())
        try:
            self.start(
                names[0], "--head", "--port=6390", "--include-dashboard=false", f"--temp-dir={self._folder}"
            ).wait()
            for start in [self.start(name, f"--address={ADDRESS}") for name in names[1:]]:
                start.wait()
        except BaseException:
            self.close()
            raise

    def start(self, name, *options, source=None, cores=1, gpus=0):
        """Start a node, whose Python modules come from ``source`` where that is given."""
        sizes = [f"--object-store-memory={STORE_BYTES}", f"--num-cpus={cores}", f"--num-gpus={gpus}"]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--node-ip-address=127.0.0.1", *sizes, *options]
        hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {self.hidden}; exec "$@"', "sh"]
        environment = {TAG: f"{self._tag} {name}", "RAY_USAGE_STATS_ENABLED": "0", **SOON_DEAD}
        return self.popen(
            [*hide, *command], environment, source=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def popen(self, command, environment=(), *, source=None, **options):
        """Start a program in the network of the cluster."""
        entry = ["-n"] if os.getuid() == 0 else ["-U", "-n", "--preserve-credentials"]
        names = {**os.environ, "OMP_NUM_THREADS": "1", **dict(environment)}
        if source is not None:
            names["PYTHONPATH"] = str(source)
        # A shell's background job ignores interrupts, and hands that on to what it starts.
        heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        inside = ["nsenter", "-t", str(self._network.pid), *entry, *command]
        return subprocess.Popen(inside, env=names, text=True, preexec_fn=heard, **options)

    def processes(self, name=""):
        """The processes of a node; of all nodes without a name."""
        wanted, numbers = f"{TAG}={self._tag} {name}".encode(), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and wanted in (entry / "environ").read_bytes():
                    numbers.append(int(entry.name))
        return numbers

    def kill(self, name=""):
        """Kill every process of a node at once; of all nodes without a name."""
        for number in self.processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def close(self):
        self.kill()
        self._network.stdin.close()
        self._network.wait()
        for folder in (self._folder, self.hidden):
            shutil.rmtree(folder, ignore_errors=True)


def until(condition, seconds=90, *, of=None):
    """Wait for a condition, while the process ``of`` lives; what the condition gives."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert of is None or of.poll() is None, f"ended with {of.returncode}"
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)
    return value
