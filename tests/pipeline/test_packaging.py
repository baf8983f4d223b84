"""The wheel: it installs one command and one package, and leaves no other name in site-packages."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", out, PROJECT]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_three_packages_below_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"tinyhd_pipe", "tinyhd_pipe-0.1.0.dist-info"}
    packages = {name.split("/")[1] for name in names if name.startswith("tinyhd_pipe/")}
    assert packages == {"pipeline", "stages", "store"}
    for package in packages:
        assert f"tinyhd_pipe/{package}/py.typed" in names
    kernels = PROJECT / "stages" / "networks" / "layers" / "kernels"
    for source in (path for path in kernels.iterdir() if path.suffix in (".c", ".h")):
        assert f"tinyhd_pipe/stages/networks/layers/kernels/{source.name}" in names, "compiled where it is installed"
    assert "tinyhd_pipe/stages/reports/report.html.j2" in names, "the page's template"
    exports = PROJECT / "stages" / "exports"
    for source in (exports / "card.md", *(exports / "web-page").iterdir()):
        assert f"tinyhd_pipe/{source.relative_to(PROJECT).as_posix()}" in names, "what is written beside an export"
    assert not [name for name in names if "test" in name]


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    python = tmp_path / "bin" / "python"
    packages = Path(subprocess.check_output([python, "-c", _PRINT_SITE_PACKAGES], text=True).strip())
    before = set(packages.iterdir())
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    assert {path.name for path in set(packages.iterdir()) - before} == {
        "tinyhd_pipe",
        "tinyhd_pipe-0.1.0.dist-info",
    }
    # Dependencies come from the environment that runs the tests; a nested path file is not read, so the editable
    # install that is there stays out of sight.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    shown = subprocess.run(
        [tmp_path / "bin" / "tinyhd-pipe", "--help"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "teacher-dump" in shown.stdout
    where = "import tinyhd_pipe.store as s; print(s.__file__)"
    assert str(packages) in subprocess.check_output([python, "-c", where], text=True, cwd=tmp_path)


_PRINT_SITE_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
