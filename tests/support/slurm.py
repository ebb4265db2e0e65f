"""A real SLURM on this machine: one controller and two nodes on loopback, all of it in one scratch folder.

It needs root and Debian's ``slurm-wlm`` and ``munge``. Nothing of it outlives ``stop()``: each of its processes has the
folder in its environment, and those that still do are killed.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
NODES = ("node1", "node2")
MARK = "SSL_VIDEO_TEST_CLUSTER"  # in the environment of every process of a cluster: its folder

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is requeued waits until its credential has expired: 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# A node that is started again after it was lost takes jobs again.
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
JobRequeue=1
KillWait=5
# A node that says nothing for so many seconds is lost, and its jobs are requeued.
SlurmdTimeout=15
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_slurm() -> str | None:
    """Why no cluster can be started here, or None."""
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        return "starting SLURM's daemons needs root"
    absent = [name for name in PROGRAMS if _find(name) is None]
    return f"{', '.join(absent)} not found (apt-get install slurm-wlm munge)" if absent else None


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Cluster:
    """Started daemons and how to ask them.

    Args:
        folder: scratch folder of the cluster's own; its path must be short, as a socket lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "SLURM_CONF": str(folder / "slurm.conf"),
            MARK: str(folder),
        }

    def start(self) -> None:
        """Starts munged, the controller and both nodes, and waits until the nodes take jobs."""
        (self.folder / "state").mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        conf = SLURM_CONF.format(host=socket.gethostname(), folder=self.folder, ports=_free_ports(3))
        (self.folder / "slurm.conf").write_text(conf)
        files = {name: self.folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={files['socket']}",
            f"--pid-file={files['pid']}",
            f"--log-file={files['log']}",
            f"--seed-file={files['seed']}",
        )
        wait_for(files["socket"].exists, "munged's socket", seconds=20)
        self._daemon("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: self.ask("sinfo", "-h", "-o", "%T").strip() == "idle", "two idle nodes", seconds=60)

    def start_node(self, node: str) -> None:
        """Starts (again) the daemon of one node."""
        (self.folder / f"spool_{node}").mkdir(exist_ok=True)
        self._daemon("slurmd", "-D", "-N", node, name=node)

    def _daemon(self, program: str, *arguments: str, name: str | None = None) -> None:
        found = _find(program)
        assert found is not None, program
        with (self.folder / f"{name or program}.output").open("ab") as output:
            self.daemons[name or program] = subprocess.Popen(
                [found, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self, *command: str, timeout: float = 60) -> str:
        """Output of a command that knows this cluster, empty where it failed."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Waiting and running jobs: ``{id: (state, nodes)}``."""
        lines = self.ask("squeue", "-h", "-r", "-o", "%i|%T|%N").splitlines()
        return {job: (state, nodes) for job, state, nodes in (line.split("|") for line in lines)}

    def lose_node(self, node: str) -> None:
        """Kills a node's daemon and all that runs on it, as a power cut does."""
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for pid, environment, command in self._processes():
            of_step = command.startswith("slurmstepd") and f"SLURMD_NODENAME={node}" not in environment
            if f"SLURMD_NODENAME={node}\0" in environment or (of_step and self._step_node(pid) == node):
                _kill(pid)

    def _step_node(self, pid: int) -> str | None:
        """Node of a ``slurmstepd``: its working directory or log is that of the node's spool folder."""
        for number in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(number)
            except OSError:
                continue
            for node in NODES:
                if target.endswith((f"slurmd_{node}.log",)) or f"/spool_{node}/" in target:
                    return node
        return None

    def _processes(self) -> Iterator[tuple[int, str, str]]:
        """(pid, environment, command) of all processes of this cluster, those of jobs too."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().decode(errors="replace")
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"{MARK}={self.folder}\0" in environment + "\0":
                yield int(folder.name), environment + "\0", command

    def stop(self) -> None:
        """Ends everything."""
        try:
            for job in self.jobs():
                self.ask("scancel", "--full", "--signal=KILL", job, timeout=20)
            self.ask("scontrol", "shutdown", timeout=20)
        except (OSError, subprocess.SubprocessError):
            pass
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()
        until = time.monotonic() + 30
        # What was killed is there for a moment more, and a process may have started another one in between.
        while self.remains() and time.monotonic() < until:
            for pid, _, _ in self._processes():
                if pid != os.getpid():
                    _kill(pid)
            time.sleep(0.1)

    def remains(self) -> list[str]:
        """Commands of what still runs."""
        return [command.replace("\0", " ") for pid, _, command in self._processes() if pid != os.getpid()]

    def logs(self) -> str:
        """The ends of the daemons' logs, to be read when something failed."""
        files = sorted((*self.folder.glob("*.log"), *self.folder.glob("*.output")))
        return "\n".join(f"--- {file.name}\n" + "\n".join(file.read_text().splitlines()[-40:]) for file in files)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(holds: Callable[[], object], what: str, *, seconds: float) -> None:
    """Waits until something holds; TimeoutError with its name if it doesn't."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.2)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that is stopped whatever happens."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()


def environment_of(cluster: Cluster, **more: str) -> Mapping[str, str]:
    """The environment for commands on the cluster's login node."""
    return {**cluster.environment, **more}
