"""Bodies of requests (docs/protocol.md), checked at the edge.

Unknown fields, wrong types and values out of range are refused, with all problems named at once.

What the services get is the plain JSON of what was sent; they know the defaults.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from runyard.wire.ids import is_run_id
from runyard.wire.paths import is_place, leaves
from runyard.wire.states import TIMES_US


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    if "\0" in value:
        raise PydanticCustomError("string_zero", "Input should hold no zero byte")
    return value


def _name(value: object) -> str:
    text = _text(value)
    if not text or len(text) > 255 or text != text.strip() or not text.isprintable():
        raise PydanticCustomError("name", "Input should be 1 to 255 printable characters without blanks at its ends")
    return text


def _project(value: object) -> str:
    text = _name(value)
    if "/" in text or text in (".", ".."):
        raise PydanticCustomError("project", "Input should hold no slash, and be neither '.' nor '..'")
    return text


def _run_id(value: object) -> str:
    text = _text(value)
    if not is_run_id(text):
        raise PydanticCustomError("run_id", "Input should be a run id: 12 characters of a-z and 2-7")
    return text


def _relative(value: object) -> str:
    text = _text(value)
    if leaves(text):
        raise PydanticCustomError("relative_path", "Input should be a relative path without '..'")
    return text


def _near(value: object) -> str:
    text = _text(value)
    if leaves(text, beside=True):
        raise PydanticCustomError("near_path", "Input should be a path in the working tree, or ../ and one beside it")
    return text


def _place(value: object) -> str:
    text = _near(value)
    if not is_place(text, beside=True):
        raise PydanticCustomError("place", "Input should name a place in the working tree, or beside it after ../")
    return text


def _inner_place(value: object) -> str:
    text = _relative(value)
    if not is_place(text):
        raise PydanticCustomError("place", "Input should name a place in the working tree")
    return text


_STRING = WithJsonSchema({"type": "string"})
Text = Annotated[str, PlainValidator(_text), _STRING]
"""A string in which bytes that are not UTF-8 stand as lone surrogates (PEP 383), which pydantic's own str refuses."""
Name = Annotated[str, PlainValidator(_name), _STRING]
Project = Annotated[str, PlainValidator(_project), _STRING]
RunId = Annotated[str, PlainValidator(_run_id), _STRING]
Relative = Annotated[str, PlainValidator(_relative), _STRING]
Near = Annotated[str, PlainValidator(_near), _STRING]
"""A path relative to the working tree; ``../lib`` is beside it, in the run's directory."""
Place = Annotated[str, PlainValidator(_place), _STRING]
"""The same, where something can be put."""
InnerPlace = Annotated[str, PlainValidator(_inner_place), _STRING]
"""The same, in the working tree only."""
TreeId = Annotated[str, Field(pattern="^([0-9a-f]{40}|[0-9a-f]{64})$")]
Count = Annotated[int, Field(ge=0)]
Epoch = Annotated[int, Field(ge=0)]
Json = dict[str, Any]


class Body(BaseModel):
    """Root of all: unknown fields are errors, and nothing is converted on the quiet."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Resources(Body):
    """What a run needs; null: the host decides."""

    gpus: Count | None = None
    cpus: Count | None = None
    mem: Count | None = Field(None, description="bytes")
    gpu_model: Text | None = None
    host: Text | None = None


class Snapshot(Body):
    """Where the code is; ``tree`` null with ``in_place``."""

    model_config = ConfigDict(extra="allow", strict=True)
    tree: TreeId | None = None
    commit: Text | None = None
    branch: Text | None = None
    dirty: bool | None = None
    changed: Any = None
    files: Count | None = None
    bytes: Count | None = None


class Link(Body):
    """A path in or beside the working tree that is a symlink to the submitter's data."""

    path: Place
    target: Text
    why: Text = ""


class Also(Snapshot):
    """A directory that is frozen beside the code."""

    path: Place
    source: Text
    tree: TreeId  # here never null


class Adopt(Body):
    """Ignored data that the source lacks: if the run makes it, later runs get it."""

    path: InnerPlace
    target: Text


class Tracking(Body):
    """What is captured of a run without any change to its code."""

    capture: list[Literal["params", "logs", "files", "data", "hardware"]] = []
    pattern: list[Text] = Field([], description="regular expressions for metrics in what the run prints")
    goal: Text = Field("", description="`max METRIC` or `min METRIC`")


class RunSpec(Body):
    """A run as submitted: the fields of `model.spec`, in their form."""

    id: RunId
    project: Project
    name: Project | None = None
    message: Text = ""
    tags: list[Name] = []
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    after: list[RunId] = []
    hold: bool = False
    retries: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    requeue: bool = True
    time_limit_s: Annotated[float, Field(gt=0, le=1e9)] | None = None
    resources: Resources = Field(default_factory=Resources.model_construct)
    command: Annotated[list[Text], Field(min_length=1)]
    program: Text | None = None
    cwd: Relative = ""
    source: Text = ""
    repo_name: Project = "code"
    in_place: bool = False
    shell: bool = False
    pty: bool = True
    fresh: bool = False
    snapshot: Snapshot = Snapshot()
    links: list[Link] = []
    also: list[Also] = []
    adopt: list[Adopt] = []
    pythonpath: list[Near] = []
    environment: Json = {}
    tracking: Tracking = Field(default_factory=Tracking.model_construct)
    rerun_of: Text | None = None
    sweep: Text | None = None


class RunSpecWithEnv(RunSpec):
    """A run as submitted, with the environment it gets."""

    env: dict[Text, Text] | None = Field(None, description="goes to a 0600 launch file, nowhere else")


class Submit(Body):
    """Several runs, submitted together."""

    runs: Annotated[list[RunSpec], Field(min_length=1)]
    env: dict[Text, Text] | None = None


class OwnRun(Body):
    """A run that a program began by itself."""

    run: RunSpec
    started_us: Annotated[int, Field(ge=0, description="microseconds since 1970 UTC")]


class OwnRuns(Body):
    """Runs that programs of a host began by themselves."""

    runs: Annotated[list[OwnRun], Field(min_length=1)]


class Changes(Body):
    """What can be changed on a run; at least one."""

    message: Text | None = None
    name: Project | None = None
    project: Project | None = None
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] | None = None
    archived: bool | None = None
    add_tags: list[Name] | None = None
    remove_tags: list[Name] | None = None


class Kill(Body):
    """``now``: without the grace period."""

    now: bool = False


class NewToken(Body):
    """A named token. ``lifetime_s`` null: until it is revoked."""

    name: Name
    scope: Literal["owner", "agent", "read"] = "owner"
    lifetime_s: Annotated[float, Field(gt=0)] | None = None


class Backup(Body):
    """``path``: absolute, on the server's host."""

    path: Annotated[Text, Field(min_length=1)]


class Exchange(Body):
    """A one-time token, for a session."""

    token: Annotated[str, Field(max_length=200)]


class Filter(BaseModel):
    """Parameters of every search for runs."""

    model_config = ConfigDict(extra="forbid")
    q: str | None = Field(None, description="words that all occur, or an expression (docs/search.md)")
    order: str | None = Field(None, description="fields, with - from the largest; default: -run.created")
    project: str | None = None
    state: list[Literal["queued", "held", "running", "finished", "failed", "killed", "lost"]] | None = None
    tag: list[str] | None = Field(None, description="all of them")
    user: str | None = None
    name: str | None = None
    trashed: bool = False
    archived: bool = Field(False, description="those that are archived, which else are left out")
    before: str | None = Field(None, pattern="^[A-Za-z0-9_-]{1,5000}$", description="`next` of the page before")


class RunFilter(Filter):
    """Parameters of a search for runs as JSON."""

    outputs: bool = Field(False, description="with the outputs of each run, which may be very many")
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class TableFilter(Filter):
    """Parameters of a search for runs as columns."""

    columns: list[str] | None = Field(
        None, description="fields; default: id, project, name, state, created_at, params.*, metrics.*"
    )
    limit: Annotated[int, Field(ge=1, le=100_000)] = 10_000


class LogQuery(BaseModel):
    """Which part of a log."""

    model_config = ConfigDict(extra="forbid")
    attempt: Annotated[int, Field(ge=1)] | None = Field(None, description="its number; the current one if left out")
    offset: int = Field(0, description="first byte; negative: from the end")
    limit: Annotated[int, Field(ge=0)] | None = Field(None, description="bytes")
    follow: bool = Field(False, description="go on until the run ends")


class Agentish(Body):
    """Root of the agent protocol's bodies: fields that a newer agent adds are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


class Held(Agentish):
    """An attempt that an agent holds."""

    epoch: Epoch
    phase: Text = ""


class HeldWithRun(Held):
    """The same in a hello."""

    run: Text


class Host(Agentish):
    """The machine of an agent."""

    id: Text
    name: Text
    boot_id: Text
    cpus: Count
    mem: Count
    os: Any = ""
    gpus: list[Any] = []


class Slot(Agentish):
    """A schedulable piece of a host."""

    name: Text
    kind: Literal["gpu", "cpu"]
    index: int | None
    uuid: Text | None = None
    model: Text | None = None
    mem: Count | None = None
    threads: Count | None = None
    free: bool = True
    why: Text = ""


class Hello(Agentish):
    """The first message of an agent."""

    host: Host
    user: Text
    uid: int
    pid: int
    version: Text
    shared_home: Text | None = None
    slots: list[Slot]
    attempts: dict[str, HeldWithRun]
    sent: int = Field(
        0, ge=0, description="the host's monotonic clock, in ns: an older hello that comes late is refused"
    )


class Heartbeat(Agentish):
    """The renewal of all leases of an agent."""

    attempts: dict[str, Held] = {}
    slots: list[Slot] | None = None
    disk_free: int | None = None
    boot_id: Text = ""


class Drain(Body):
    """Whether an agent is to take nothing new."""

    drain: bool = True


class Poll(Agentish):
    """The agent's long poll."""

    known: list[Text] = []
    wait_s: Annotated[float, Field(ge=0, le=60)] = 25.0


class PhaseChange(Agentish):
    """An attempt goes on to its next phase."""

    epoch: Epoch
    phase: Literal["assigned", "staging", "running", "stopping", "ended"]


class End(Agentish):
    """How an attempt ended."""

    attempt: Text
    epoch: Epoch
    exit_code: int | None = None
    signal: int | None = None
    reason: Text
    origin: Literal["user", "infra", "scheduler", "human"]
    started_at: int | None = Field(None, description="microseconds since 1970 UTC")
    ended_at: int = Field(description="microseconds since 1970 UTC")
    log_bytes: Count = 0
    log_dropped: Count = 0


class Finish(Agentish):
    """Ends of several attempts."""

    ends: list[End]


class HandBack(Agentish):
    """A slot proved busy just before the start."""

    epoch: Epoch
    why: Text = ""


class Output(Agentish):
    """A file that a run wrote."""

    path: Relative
    size: Count
    mtime_us: Annotated[int, Field(ge=TIMES_US[0], le=TIMES_US[1])]
    type: Text = ""
    step: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    series: Text | None = None


class Outputs(Agentish):
    """All files that an attempt wrote so far."""

    outputs: list[Output]
