"""The code of a run, as the run spec says it: frozen now, the same as that of another run, or not frozen at all."""

from __future__ import annotations

import os

from runyard.wire import config, files, paths, settings
from runyard.wire.errors import ConflictError, HomeError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from runyard.client.api import Api

    Json = dict[str, Any]

KEPT = ("cwd", "source", "repo_name", "snapshot", "links", "pythonpath", "also", "adopt")
"""Fields of a run that say what its code is."""


class Code:
    """The code of a run.

    ``spec``: fields of the run spec; ``project``: of the project's settings, or the name of the top directory;
    ``notes``: sentences for the user; ``left_out``: paths that could not be frozen (sockets, devices); ``editable``:
    name and path of editable installs elsewhere, whose code is not frozen.
    """

    def __init__(self, spec: Json, project: str) -> None:
        self.spec = spec
        self.project = project
        self.notes: list[str] = []
        self.left_out: list[str] = []
        self.editable: dict[str, str] = {}
        self.tracking: Json = {}
        """What is captured of a run, as the project's settings say."""

    @property
    def source(self) -> str:
        """The user's top directory."""
        return str(self.spec["source"])

    @property
    def directory(self) -> str:
        """The directory of the submit."""
        return os.path.join(self.source, self.spec["cwd"]).rstrip("/")


def freeze(options: Mapping[str, Any], cwd: str, program: str, environ: Mapping[str, str]) -> Code:
    """Freeze the working tree that holds ``cwd`` as the options and the project's settings say.

    ``program``: the run's; editable installs of its interpreter that lie in the tree are frozen with it.

    Raises:
        SnapshotError: it cannot be frozen.
        ConfigError: a setting is wrong.
    """
    from runyard.snapshot.source import find, plain_name

    found = find(cwd).top
    top, name = os.fsdecode(found), plain_name(found) or "root"
    home = paths.home(environ)
    values = config.home_settings(home, {})
    values.update(config.project_settings(top))
    values.update(settings.from_environment(environ))
    project = options["project"] or values["project"] or name
    tracking = {"goal": values["goal"]}
    tracking["pattern"] = [*patterns(options), *values["pattern"]]
    tracking["capture"] = [] if options["no_capture"] else [kind for kind in values["capture"] if kind != "none"]
    if options["in_place"]:
        code = _in_place(options, cwd, top, name, project)
        code.tracking = tracking
        return code
    from runyard.snapshot.freeze import freeze as freeze_tree

    try:
        max_file = settings.parse_size(values["max_file"])
    except ValueError as exc:
        raise UsageError("max_file: %s" % exc, settings.BY_NAME["max_file"].help) from exc
    frozen = freeze_tree(
        cwd,
        home,
        link=[*options["link"], *options["data"]],
        project_link=values["link"],
        also=options["also"],
        ignore=values["ignore"],
        max_file=max_file,
        require_clean=values["require_clean"],
        environ=environ,
    )
    code = Code(frozen.spec(), project)
    code.tracking = tracking
    code.notes = list(frozen.warnings)
    code.left_out = ["%s (%s)" % (item["path"], item["why"]) for item in frozen.skipped]
    _add_editable(code, program, environ)
    return code


def patterns(options: Mapping[str, Any]) -> list[str]:
    """Return the patterns of the command line; raises UsageError for one that is none."""
    given = list(options["pattern"])
    if given:
        from runyard.wire.patterns import Patterns

        try:
            Patterns(given)
        except ValueError as exc:
            raise UsageError("--pattern: %s" % exc, settings.BY_NAME["pattern"].help) from exc
    return given


def _add_editable(code: Code, program: str, environ: Mapping[str, str]) -> None:
    """Let the run import the frozen code where the submitter's interpreter has the live one installed as editable."""
    from runyard.snapshot.editable import find_editable, find_interpreter

    roots = [(code.source, ""), *((tree["source"], tree["path"]) for tree in code.spec["also"])]
    found = find_editable(find_interpreter(program, environ, code.source), roots, environ)
    code.spec["pythonpath"] = found.pythonpath
    code.editable = dict(found.elsewhere)
    if found.unmapped:
        code.notes.append(
            "%s: installed so that the live code is imported, not the frozen one" % ", ".join(found.unmapped)
        )


def _in_place(options: Mapping[str, Any], cwd: str, top: str, name: str, project: str) -> Code:
    given = [name for name in ("link", "data", "also") if options[name]]
    if given:
        raise UsageError("--%s has no meaning with --in-place" % given[0], "the run starts in the directory as it is")
    below = os.path.relpath(os.path.realpath(cwd), top)
    return Code(
        {
            "cwd": "" if below == "." else below,
            "source": top,
            "repo_name": name,
            "snapshot": {"tree": None},
            "links": [],
        },
        project,
    )


def again(old: Mapping[str, Any], link: Sequence[str], cwd: str) -> Code:
    """Return the code of an earlier run (as the API gives it), with more links (relative to ``cwd``)."""
    if not (old.get("snapshot") or {}).get("tree"):
        raise ConflictError("the code of %s was not frozen" % old["id"], "use that of now: --code now")
    spec = {name: old[name] for name in KEPT if name in old}
    links = {item["path"]: item for item in spec.get("links") or []}
    for name in link:
        target = os.path.normpath(os.path.join(cwd, os.path.expanduser(name)))
        if not os.path.lexists(target):
            raise UsageError("%s cannot be linked: there is no such file" % name, "check the path")
        path = os.path.relpath(target, old["source"])
        if path == "." or path.startswith("../../"):
            raise UsageError("%s cannot be linked: it has no place in the run" % name, "use its absolute path")
        links[path] = {"path": path, "target": target, "why": "asked for"}
    spec["links"] = list(links.values())
    code = Code(spec, str(old["project"]))
    code.tracking = dict(old.get("tracking") or {})
    return code


def check_reach(api: Api, environ: Mapping[str, str]) -> None:
    """Make sure that the code which is frozen into this home is where the server looks for it.

    Raises:
        HomeError: the server has another home.
    """
    if api.url.startswith("unix:"):
        return
    home = paths.Home(paths.home(environ))
    info = files.read_json(home.server_json)
    if not isinstance(info, dict) or info.get("yard") != api.health().get("yard"):
        raise HomeError(
            "the server at %s has another home than %s, and code is frozen into the home" % (api.url, home.path),
            "submit on the server's host, or where its home is mounted (RUNYARD_HOME)",
        )
