"""Whatever a label file is, it says where people looked; what it cannot say is one line."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix

from tinyhd_pipe.stages.gaze.annotated import read_density, read_fixations
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.gaze.label_files import read_fixation_file, read_grey, rescaled_points
from tinyhd_pipe.stages.gaze.metrics import nss
from tinyhd_pipe.store.errors import DataError

SIZE = (24, 32)
GREY = np.add.outer(np.arange(24) * 4, np.arange(32) * 5).astype(np.uint8)
POINTS = np.zeros(SIZE, np.uint8)
POINTS[3, 5] = POINTS[20, 31] = POINTS[0, 0] = 1


def _save(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def _pictures(folder: Path) -> dict[str, tuple[Path, float]]:
    """The same map in every kind of picture, and by how much it may differ."""
    grey = Image.fromarray(GREY)
    colours = np.stack([GREY, GREY // 2, GREY // 3], axis=-1)
    alpha = np.concatenate([colours, np.full((*SIZE, 1), 90, np.uint8)], axis=-1)
    palette = grey.convert("P")
    palette.putpalette([shade for shade in range(256) for _ in range(3)])
    return {
        "grey": (_save(folder / "grey.png", grey), 0),
        "RGB": (_save(folder / "rgb.png", Image.fromarray(colours)), 0),
        "RGBA": (_save(folder / "rgba.png", Image.fromarray(alpha)), 0),
        "grey and alpha": (_save(folder / "la.png", grey.convert("LA")), 0),
        "palette": (_save(folder / "palette.png", palette), 0),
        "16 bit": (_save(folder / "deep.png", Image.fromarray(GREY.astype(np.uint16) * 257)), 0),
        "JPEG": (_save(folder / "grey.jpg", grey, quality=95), 0.02),
        "JPEG in colour": (_save(folder / "rgb.JPEG", Image.fromarray(np.repeat(GREY[..., None], 3, 2))), 0.02),
    }


def test_density_maps_of_any_kind_of_picture_are_the_same_map(tmp_path: Path) -> None:
    for path, apart in _pictures(tmp_path).values():
        read = read_grey(path)
        assert read.dtype == np.float32
        assert np.abs(read - GREY / 255).max() <= apart + 1e-6


def _write_7_3(path: Path, name: str, values: NDArray[Any] | csc_matrix) -> Path:
    with h5py.File(path, "w", userblock_size=512) as file:
        if isinstance(values, csc_matrix):
            group = file.create_group(name)
            group.attrs["MATLAB_sparse"] = np.uint64(values.shape[0])
            group["data"], group["ir"], group["jc"] = values.data, values.indices, values.indptr
        else:
            file[name] = values.T  # MATLAB's columns come first
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def test_fixations_are_the_same_points_in_a_png_and_in_every_kind_of_mat(tmp_path: Path) -> None:
    sparse = csc_matrix(POINTS.astype(float))
    files = [_save(tmp_path / "a.png", Image.fromarray(POINTS))]
    for name, values in {"dense": POINTS, "sparse": sparse, "logical": POINTS > 0}.items():
        for variable in ("I", "eyeMap"):
            savemat(tmp_path / f"{name}_{variable}.mat", {variable: values})
            files.append(tmp_path / f"{name}_{variable}.mat")
    files += [_write_7_3(tmp_path / "v73.mat", "I", POINTS), _write_7_3(tmp_path / "v73_sparse.MAT", "J", sparse)]
    savemat(tmp_path / "many.mat", {"I": POINTS, "J": 1 - POINTS})
    for path in [*files, tmp_path / "many.mat"]:
        read = read_fixation_file(path)
        assert read.dtype == np.bool_
        assert np.array_equal(read, POINTS > 0), path.name


def test_dark_noise_of_a_jpeg_is_no_fixation(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", Image.fromarray(POINTS * 255), quality=95)
    assert int((read_grey(path) > 0).sum()) > 20, "there must be noise for this to mean anything"
    assert np.array_equal(read_fixation_file(path), POINTS > 0)


def test_a_mat_that_holds_no_one_map_is_one_line(tmp_path: Path) -> None:
    savemat(tmp_path / "two.mat", {"J": POINTS, "K": POINTS})
    savemat(tmp_path / "words.mat", {"J": "no map"})
    savemat(tmp_path / "none.mat", {})
    for name, said in (("two", "has no variable 'I', but J, K"), ("words", "'J' is <U"), ("none", "but none")):
        with pytest.raises(DataError, match=said) as raised:
            read_fixation_file(tmp_path / f"{name}.mat")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (12, 16), (25, 33), (7, 100)])
def test_points_at_another_size_stay_where_they_were_looked_at(size: tuple[int, int]) -> None:
    moved = rescaled_points(POINTS > 0, size)
    assert moved.shape == size
    assert moved.sum() == 3
    before, after = (np.argwhere(points) + 0.5 for points in (POINTS, moved))
    assert np.abs(before / SIZE - after / size).max() <= 0.5 * max(1 / min(SIZE), 1 / min(size)) + 1e-9


@pytest.mark.shared
def test_fixations_of_another_size_than_their_map_score_as_those_of_its_size(shared: Path) -> None:
    cases = shared / "data/cases"
    (video,) = find_annotated_videos(cases / "fixations_of_another_size").videos
    (same,) = find_annotated_videos(cases / "gap_in_numbers_reference").videos
    for frame in range(20):
        density, fixations, expected = (
            read_density(video, frame),
            read_fixations(video, frame),
            read_fixations(same, frame),
        )
        assert density is not None
        assert fixations is not None
        assert expected is not None
        assert np.array_equal(fixations, expected)
        assert nss(density, fixations) == nss(density, expected) > 1


@pytest.mark.shared
def test_sparse_fixations_are_read(shared: Path) -> None:
    (video,) = find_annotated_videos(shared / "data/cases/sparse_mat").videos
    assert len(video.fixations) == 20
    for frame in video.fixations:
        density, fixations = read_density(video, frame), read_fixations(video, frame)
        assert density is not None
        assert fixations is not None
        assert density[fixations].mean() > 0.9
