"""The tables of the command line: the options of ``run`` and the names of all commands.

The hand parser (`cli.parse`), click (`cli.app`: ``--help`` and completion) and the generated reference read the same
rows. No imports here: this is on the path of every command.
"""

from __future__ import annotations

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT."""
FLAG, TEXT, INT, SIZE, TIME = "flag", "text", "int", "size", "time"


class Option:
    """One option of ``run``.

    ``kind``: flag (no value), text, int, size (becomes bytes) or time (becomes seconds). ``repeat``: may be given
    several times and yields a list. ``minimum``: least value of an int.
    """

    __slots__ = ("group", "help", "kind", "metavar", "minimum", "name", "repeat", "short")

    def __init__(
        self,
        name: str,
        short: str,
        metavar: str,
        kind: str,
        help: str,
        group: str,
        *,
        repeat: bool = False,
        minimum: int | None = None,
    ) -> None:
        self.name = name
        self.short = short
        self.metavar = metavar
        self.kind = kind
        self.help = help
        self.group = group
        self.repeat = repeat
        self.minimum = minimum

    @property
    def flag(self) -> str:
        """The option as typed: ``--time-limit``."""
        return "--" + self.name

    @property
    def key(self) -> str:
        """The key in the parsed options: ``time_limit``."""
        return self.name.replace("-", "_")


RECORD, NEED, QUEUE, CODE, SHOW = "What is recorded", "What it needs", "When it runs", "Code and data", "What you see"
RUN_OPTIONS = (
    Option("message", "m", "TEXT", TEXT, "Why you run this.", RECORD),
    Option("project", "p", "NAME", TEXT, "Project; default: the name of the repository's top directory.", RECORD),
    Option("namespace", "n", "NAME", TEXT, "The same as --project.", RECORD),
    Option("tag", "t", "TAG", TEXT, "A tag (repeat).", RECORD, repeat=True),
    Option("name", "", "NAME", TEXT, "A name for this run.", RECORD),
    Option("no-capture", "", "", FLAG, "Look at nothing of the program but its output and files.", RECORD),
    Option(
        "pattern",
        "",
        "REGEX",
        TEXT,
        r"Find a metric in what it prints, e.g. 'loss is (\value)' (repeat).",
        RECORD,
        repeat=True,
    ),
    Option("gpus", "", "N", INT, "GPUs; default: one where the host has any, else one CPU slot.", NEED, minimum=0),
    Option("cpus", "", "N", INT, "CPU cores.", NEED, minimum=1),
    Option("mem", "", "SIZE", SIZE, "Memory, e.g. 8GB.", NEED),
    Option("gpu-model", "", "NAME", TEXT, "Only GPUs whose model contains NAME.", NEED),
    Option("host", "", "NAME", TEXT, "Only this host.", NEED),
    Option("time-limit", "", "TIME", TIME, "Stop it after this long, e.g. 90s, 15m, 2h, 1d.", NEED),
    Option("priority", "", "N", INT, "Higher starts first; default 0.", QUEUE),
    Option("after", "", "RUN", TEXT, "Start only when RUN has finished (repeat).", QUEUE, repeat=True),
    Option("retries", "", "N", INT, "Run it again up to N times when the program fails.", QUEUE, minimum=0),
    Option("fresh", "", "", FLAG, "Empty the run's directory before a retry.", QUEUE),
    Option("no-requeue", "", "", FLAG, "Do not run it again when its host is lost.", QUEUE),
    Option("hold", "", "", FLAG, "Queue it, but start it only after `runyard release`.", QUEUE),
    Option("link", "", "PATH", TEXT, "Link PATH into the run instead of copying it (repeat).", CODE, repeat=True),
    Option("data", "", "PATH", TEXT, "Data that the run reads; implies --link (repeat).", CODE, repeat=True),
    Option("env", "", "KEY=VALUE", TEXT, "Set a variable for the run (repeat).", CODE, repeat=True),
    Option("also", "", "DIR", TEXT, "Freeze this directory outside the repository too (repeat).", CODE, repeat=True),
    Option("in-place", "", "", FLAG, "Run in the current directory; marked `code not frozen`.", CODE),
    Option("shell", "", "", FLAG, "COMMAND is one line for the shell (sh -c).", CODE),
    Option("no-pty", "", "", FLAG, "Give the program pipes instead of a terminal.", CODE),
    Option("follow", "f", "", FLAG, "Show the output until the run ends; exit with its status.", SHOW),
    Option("wait", "", "", FLAG, "Wait until the run ends; exit with its status.", SHOW),
    Option("json", "", "", FLAG, "Print the run as JSON; with -f its output goes to stderr.", SHOW),
    Option("dry-run", "", "", FLAG, "Show what would be submitted; submit nothing.", SHOW),
)
GROUPS = (RECORD, NEED, QUEUE, CODE, SHOW)
VERBOSE = Option("verbose", "v", "", FLAG, "Show the traceback of an error.", SHOW)
"""Accepted by every command, before or after its name."""


class Command:
    """One subcommand: its name, the module of ``runyard.cli`` that has it, and one line of help."""

    __slots__ = ("help", "module", "name", "section")

    def __init__(self, name: str, module: str, section: str, help: str) -> None:
        self.name = name
        self.module = module
        self.section = section
        self.help = help


RUNS, LOOK, CHANGE, SERVER, CARE = "Run", "Look", "Change", "Server", "Housekeeping"
SECTIONS = (RUNS, LOOK, CHANGE, SERVER, CARE)
COMMANDS = (
    Command("run", "run", RUNS, "Freeze the code, queue a command, run it in the background."),
    Command("rerun", "rerun", RUNS, "Run a run again, with changes."),
    Command("checkout", "code", RUNS, "Write the exact code of a run into a directory."),
    Command("ls", "look", LOOK, "List runs."),
    Command("show", "look", LOOK, "Show everything about a run."),
    Command("logs", "logs", LOOK, "Print the output of a run."),
    Command("outputs", "logs", LOOK, "List the files that a run wrote."),
    Command("get", "logs", LOOK, "Fetch a file that a run wrote."),
    Command("diff", "code", LOOK, "Compare two runs, or a run and the working tree (`.`)."),
    Command("compare", "compare", LOOK, "Compare the parameters and metrics of runs, the best first."),
    Command("export", "export", LOOK, "Write runs into a CSV, Parquet, JSON or LaTeX file."),
    Command("open", "yard", LOOK, "Open the page in a browser."),
    Command("kill", "change", CHANGE, "Stop runs."),
    Command("hold", "change", CHANGE, "Keep queued runs from starting."),
    Command("release", "change", CHANGE, "Let held runs start."),
    Command("rm", "change", CHANGE, "Move ended runs to the trash (--undo brings them back)."),
    Command(
        "archive", "change", CHANGE, "Take runs out of the lists, without removing anything (--undo brings them back)."
    ),
    Command("note", "change", CHANGE, "Set the message of a run."),
    Command("tag", "change", CHANGE, "Add and remove tags."),
    Command("rename", "change", CHANGE, "Name a run."),
    Command("move", "change", CHANGE, "Move runs to another project."),
    Command("start", "yard", SERVER, "Start the server (most commands do it by themselves)."),
    Command("stop", "yard", SERVER, "Stop the server; runs go on."),
    Command("restart", "yard", SERVER, "Stop the server and start it again; runs go on."),
    Command("status", "yard", SERVER, "Show server, slots and queue."),
    Command("server-logs", "yard", SERVER, "Print the server's log."),
    Command("agent", "agent", SERVER, "Run an agent: this host takes runs of a server elsewhere."),
    Command("token", "token", SERVER, "Create, list and revoke tokens for programs and other hosts."),
    Command("doctor", "doctor", CARE, "Check this host, and say how to repair what is wrong."),
    Command("demo", "demo", CARE, "See it work: six runs of a small model, in under a minute, offline."),
    Command("du", "admin", CARE, "Show what uses disk space."),
    Command("gc", "admin", CARE, "Free disk space; says first what it would free."),
    Command("backup", "admin", CARE, "Write database and snapshots into one file."),
    Command("restore", "admin", CARE, "Bring a backup back."),
    Command("completion", "completion", CARE, "Print the completion script for bash, zsh or fish."),
)
NAMES = frozenset(command.name for command in COMMANDS)
