"""Data that is not in git is there, linked and not copied."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import Cli


def test_ignored_data_and_data_beside_the_tree_are_linked(cli: Cli) -> None:
    (cli.cwd / "data").mkdir()
    (cli.cwd / "data" / "inside.txt").write_text("inside")
    beside = cli.cwd.parent / "data"
    beside.mkdir()
    (beside / "beside.txt").write_text("beside")
    script = (
        "from pathlib import Path; print(open('data/inside.txt').read(), open('../data/beside.txt').read(), "
        "(Path.cwd() / 'data').is_symlink())"
    )
    run = cli.until(cli.submit("python", "-c", script), "finished", "failed")
    assert cli.out("logs", run["id"]).strip() == "inside beside True"
    assert {link["path"] for link in run["links"]} == {"data", "../data"}
    assert {Path(link["target"]) for link in run["links"]} == {cli.cwd / "data", beside}


def test_a_script_that_downloads_its_data_does_so_once(cli: Cli) -> None:
    (cli.cwd / "get.py").write_text(
        "import os\n"
        "if not os.path.exists('data/set.csv'):\n"
        "    os.makedirs('data', exist_ok=True)\n"
        "    open('data/set.csv', 'w').write('1,2\\n')\n"
        "    print('downloaded')\n"
        "print(open('data/set.csv').read())\n"
    )
    first = cli.submit("python", "get.py")
    cli.until(first, "finished")
    assert "downloaded" in cli.out("logs", first)
    second = cli.submit("python", "get.py")
    cli.until(second, "finished")
    assert cli.out("logs", second).strip() == "1,2"
